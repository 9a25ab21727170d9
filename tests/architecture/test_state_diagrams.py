"""The drawn state diagrams show the legal transitions of the models, and name functions that exist."""

import re

import pytest

from durable_agents import lifecycle
from durable_agents.models import (
    STREAM_TRANSITIONS,
    THREAD_TRANSITIONS,
    TOOL_CALL_TRANSITIONS,
    IllegalTransitionError,
    StreamState,
    ThreadStatus,
    ToolCallStatus,
    next_state,
)
from tests.architecture.sources import ROOT

TABLES = {
    "THREAD_TRANSITIONS": THREAD_TRANSITIONS,
    "STREAM_TRANSITIONS": STREAM_TRANSITIONS,
    "TOOL_CALL_TRANSITIONS": TOOL_CALL_TRANSITIONS,
}
ASCII_LINE = re.compile(r"^ +(\w+) ─+► (\w+) +(.+)$", re.MULTILINE)
MERMAID_LINE = re.compile(r"^ +(\w+) --> (\w+): (.+)$", re.MULTILINE)
FUNCTION = re.compile(r"\b[a-z]+_[a-z_]+\b|^(?:claim|expire|reap|release)\b|(?<=, )(?:expire|reap|release)\b")
NOT_FUNCTIONS = {"max_steps"}


def ascii_diagrams():
    """Return the transitions of each diagram in the docstring of `lifecycle`, by the name of its table."""
    _, *sections = re.split(r"``(\w+_TRANSITIONS)``", lifecycle.__doc__ or "")
    return {name: ASCII_LINE.findall(text) for name, text in zip(sections[::2], sections[1::2], strict=True)}


def mermaid_diagram():
    """Return the transitions of the diagram in the concepts page, without the initial one."""
    page = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    return MERMAID_LINE.findall(page)


def legal(table):
    """Return the pairs of a table of transitions."""
    return {(str(before), str(after)) for before, allowed in table.items() for after in allowed}


def pairs(transitions):
    """Return the states before and after each transition."""
    return {(before, after) for before, after, _ in transitions}


@pytest.mark.parametrize("name", TABLES)
def test_the_diagram_in_the_docstring_shows_exactly_the_legal_transitions(name):
    assert pairs(ascii_diagrams()[name]) == legal(TABLES[name])


def test_the_diagram_in_the_docs_shows_exactly_the_legal_transitions():
    assert pairs(mermaid_diagram()) == legal(THREAD_TRANSITIONS)


def test_the_diagrams_name_functions_that_exist():
    labels = [label for diagram in [*ascii_diagrams().values(), mermaid_diagram()] for *_, label in diagram]
    names = {name for label in labels for name in FUNCTION.findall(label)} - NOT_FUNCTIONS
    assert {"stop_thread", "claim", "reap"} <= names
    assert names - set(lifecycle.__all__) == set()


@pytest.mark.parametrize(
    ("states", "table"),
    [
        (ThreadStatus, THREAD_TRANSITIONS),
        (StreamState, STREAM_TRANSITIONS),
        (ToolCallStatus, TOOL_CALL_TRANSITIONS),
    ],
)
def test_a_change_that_is_not_in_the_table_raises(states, table):
    for before in states:
        for after in states:
            if after in table[before]:
                assert next_state(before.value, after) is after
            else:
                with pytest.raises(IllegalTransitionError):
                    next_state(before.value, after)
