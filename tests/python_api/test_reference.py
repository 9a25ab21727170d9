"""The reference of the Python API is whole, and true where a program can tell."""

import inspect
import re

import pytest

import durable_agents
from tests.architecture.sources import ROOT

PAGE = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)


def functions():
    """Return the names of the exported functions that have a twin."""
    return {name for name in durable_agents.__all__ if f"a{name}" in durable_agents.__all__}


def test_every_function_has_its_heading_and_no_other_has():
    """A reader finds what there is."""
    assert sorted(HEADINGS) == sorted(functions())


@pytest.mark.parametrize("name", HEADINGS)
def test_the_arguments_are_those_of_the_function(name):
    """In their order, with their defaults."""
    [documented] = re.findall(rf"^`{name}\((.*?)\)`", PAGE, re.MULTILINE | re.DOTALL)
    names = [argument.partition("=")[0].strip() for argument in documented.split(",")]
    parameters = inspect.signature(getattr(durable_agents, name)).parameters
    assert [argument for argument in names if argument != "*"] == list(parameters)
    for argument, parameter in parameters.items():
        if parameter.default is not parameter.empty:
            assert f"{argument}={parameter.default!r}".replace("'", '"') in documented
