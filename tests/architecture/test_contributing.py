"""The recipes of CONTRIBUTING.md name files and Python names that exist."""

import re

import pytest

from tests.architecture.sources import ROOT

PAGES = ["CONTRIBUTING.md", "SECURITY.md"]
PATH = re.compile(r"`((?:durable_agents|tests|docs|requirements|\.ci)/[\w./-]*)`")
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s:]+)[^)]*\)")
NAMES = {
    "durable_agents/lifecycle/transaction.py": ["hold_thread"],
    "durable_agents/lifecycle/audit.py": ["record"],
    "durable_agents/live/frames.py": ["_ALL", "ClientCommand"],
    "durable_agents/live/commands.py": ["HANDLERS"],
    "durable_agents/live/consumer.py": ["ThreadConsumer"],
    "durable_agents/checks.py": ["RULES"],
    "durable_agents/conf.py": ["Config"],
    "durable_agents/api/base.py": ["AgentsView"],
}
"""Where the names are defined that the recipes use."""


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = [*PATH.findall(text), *LINK.findall(text)]
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("file", NAMES)
def test_the_names_in_the_recipes_are_defined_where_they_say(file):
    source = (ROOT / file).read_text(encoding="utf-8")
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in NAMES[file]:
        assert name in text
        assert re.search(rf"^ *(?:def |class )?{name}\b", source, re.MULTILINE)
