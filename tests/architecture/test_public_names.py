"""The names that users import from `durable_agents` exist, and none is exported by accident."""

import inspect

import pytest

import durable_agents


@pytest.mark.parametrize("name", sorted(durable_agents.__all__))
def test_every_exported_name_exists(name):
    """Names are loaded lazily, so a stale one would only fail in somebody's project."""
    assert getattr(durable_agents, name) is not None


@pytest.mark.parametrize("name", sorted(durable_agents.__all__))
def test_every_exported_function_and_class_is_documented(name):
    """The docstring is the contract."""
    exported = getattr(durable_agents, name)
    if inspect.isroutine(exported) or inspect.isclass(exported):
        assert inspect.getdoc(exported)


def test_an_unknown_name_is_an_attribute_error():
    """The lazy door behaves as a module does."""
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = durable_agents.no_such_name


def test_the_exported_names_are_listed_by_dir():
    """A shell completes them."""
    assert set(durable_agents.__all__) <= set(dir(durable_agents))
