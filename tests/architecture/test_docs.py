"""The documentation says what is true: every setting is in its table, and no link leads nowhere."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from durable_agents.conf import Config
from tests.architecture.sources import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)[^)]*\)")


def test_the_settings_page_lists_every_key_and_no_other():
    """A reader can trust the reference to be whole."""
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(field.name.upper() for field in fields(Config))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_project_leads_somewhere(page: Path):
    """Links to the web are not followed."""
    targets = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_first_two_shell_blocks_of_the_readme_are_one_line_each():
    """The first starts the demo, the second runs the tests; .ci/run runs them literally."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert [block.count("\n") for block in blocks[:2]] == [1, 1]
    assert blocks[0].endswith("manage.py demo\n")
    assert blocks[1].endswith("-m pytest\n")
