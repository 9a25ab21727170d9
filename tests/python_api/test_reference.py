"""The reference of the Python API is whole, and true where a program can tell."""

import inspect
import re

import pytest

import durable_agents
from durable_agents.exceptions import ErrorKind
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


def rows(section):
    """Return the cells of a section's table, a list for each row."""
    [text] = re.findall(rf"^##+ {re.escape(section)}\n(.*?)^##", PAGE, re.MULTILINE | re.DOTALL)
    return [[cell.strip() for cell in row.split(" | ")] for row in re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)]


@pytest.mark.parametrize(
    ("section", "name", "positional"),
    [
        ("The arguments of `Agent`", "Agent", ["name"]),
        ("The arguments of `tool`", "tool", ["function"]),
        ("The arguments of `Retry`", "Retry", []),
        ("The arguments of `Streaming`", "Streaming", []),
    ],
)
def test_the_arguments_of_a_declaration_are_listed_with_their_defaults(section, name, positional):
    """In their order."""
    listed = {}
    for arguments, defaults, _ in rows(section):
        shown = [default.strip("`") for default in defaults.split(", ")]
        names = [argument.strip("`") for argument in arguments.split(", ")]
        listed |= dict(zip(names, shown * len(names) if len(shown) == 1 else shown, strict=False))
    parameters = inspect.signature(getattr(durable_agents, name)).parameters
    expected = {
        argument: "required" if parameter.default is parameter.empty else repr(parameter.default).replace("'", '"')
        for argument, parameter in parameters.items()
        if argument not in positional
    }
    assert list(listed.items()) == list(expected.items())


def test_every_error_kind_is_listed():
    """In the order of the enum."""
    assert [kind.strip("`") for kind, _ in rows("Error kinds")] == [kind.value for kind in ErrorKind]
