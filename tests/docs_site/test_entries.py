"""Every public name has an entry in the reference, in Python and in JavaScript."""

import re

import pytest

from docs._site import frames, javascript, python, typescript
from docs._site.public_names import DOCS, all_entries, public_names
from durable_agents.exceptions import DurableAgentsError, ErrorKind

ENTRIES = all_entries()
MODULES = {
    module: typescript.exported_names((javascript.FOLDER / f"{module}.js").read_text(encoding="utf-8"))
    for module in javascript.MODULES
}
EXPORTS = sorted((module, name) for module, names in MODULES.items() for name in names)
FRAMES = [(side, name) for side, names in frames.frame_names().items() for name in names]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md")}


def entry(reference: str, anchor: str) -> str:
    """Return the text of the entry with this anchor, without its heading and its code."""
    [text] = re.findall(rf"^### .* \{{ #{re.escape(anchor)} \}}\n(.*?)(?=^##|\Z)", reference, re.DOTALL | re.MULTILINE)
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE).strip()


@pytest.mark.parametrize("name", sorted(public_names()))
def test_every_public_python_name_has_an_entry(name):
    assert name in ENTRIES


def test_no_entry_is_of_a_name_that_is_not_public():
    """What is in the reference can be relied on."""
    assert sorted(set(ENTRIES) - public_names()) == []


@pytest.mark.parametrize(("module", "name"), EXPORTS)
def test_every_export_of_a_javascript_module_has_an_entry_that_says_something(module, name):
    assert entry(javascript.module_reference(module), name)


@pytest.mark.parametrize(("side", "name"), FRAMES)
def test_every_frame_has_an_entry_that_says_something(side, name):
    assert entry(frames.frame_reference(), f"{side}-{name}")


@pytest.mark.parametrize("module", javascript.MODULES)
def test_every_link_between_the_entries_of_modules_leads_to_an_entry(module):
    reference = javascript.module_reference(module)
    anchors = {
        module: set(re.findall(r"\{ #(\S+) \}", javascript.module_reference(module))) for module in javascript.MODULES
    }
    links = re.findall(r"\]\((javascript\.md)?#(\S+)\)", reference)
    missing = [anchor for page, anchor in links if anchor not in anchors["durable-agents" if page else module]]
    assert missing == []
    assert len(re.findall(r"\{ #(\S+) \}", reference)) == len(anchors[module])


def test_the_pages_ask_for_everything_that_is_made():
    """A table that no page has would be missing on the site."""
    asked = re.findall(r"^<!-- reference: (.+) -->$", "\n".join(PAGES.values()), re.MULTILINE)
    modules = [f"javascript {module}" for module in javascript.MODULES]
    assert sorted(asked) == sorted(["error kinds", "errors", "frames", "names", *modules])


def test_the_table_of_errors_has_every_error_with_its_code():
    def all_of(error):
        return {error}.union(*(all_of(sub) for sub in error.__subclasses__()))

    rows = re.findall(r"^\| \[`(\w+)`\]\[\S+\] \| `(\w+)` \| (\S+) \|$", python.error_table(), re.MULTILINE)
    ours = {error for error in all_of(DurableAgentsError) if error.__module__ == "durable_agents.exceptions"}
    assert sorted(rows) == sorted((error.__name__, error.code, str(error.status_code or "-")) for error in ours)


def test_the_table_of_error_kinds_has_every_kind():
    rows = re.findall(r"^\| `(\w+)` \| `\w+` \| (yes|no) \| (.+) \|$", python.error_kind_table(), re.MULTILINE)
    assert rows == [(kind.value, "yes" if kind.retryable else "no", kind.safe_message) for kind in ErrorKind]


def test_the_list_of_names_has_each_name_but_the_async_versions():
    """Each has the entry of its function."""
    listed = set(re.findall(r"\]\[(\S+)\]$", python.name_list(), re.MULTILINE))
    twins = {name for name in ENTRIES if name.startswith("durable_agents.a") and name.replace(".a", ".", 1) in ENTRIES}
    assert listed == set(ENTRIES) - twins - {"durable_agents.testing.arun_until_idle"}
    assert "durable_agents.acreate_thread" in twins


@pytest.mark.parametrize("name", ["create_thread", "stream_thread", "add_tool_result", "Agent"])
def test_an_entry_of_the_python_page_begins_with_the_signature_and_its_annotations(name):
    page = python.with_signatures("reference/python.md", PAGES["python.md"])
    begin = rf"^### .*\b{name}`?\n\n\[\]\(\)\{{ #durable_agents\.{name} \}}\n\n```python\n(.*?)\n```"
    [begun] = re.findall(begin, page, re.DOTALL | re.MULTILINE)
    assert begun.startswith(f"{name}(")
    assert ": " in begun
    assert f"\n`{name}(" not in page
