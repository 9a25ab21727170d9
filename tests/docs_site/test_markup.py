"""What GitHub shows is shown on the site, too: lists, anchors of headings, tables and diagrams."""

import pytest

from docs._site.headings import slug
from docs._site.lists import BROKEN_ITEM, with_wide_indents
from docs._site.state_diagrams import as_table
from docs._site.tables import with_column_names


@pytest.mark.parametrize(
    ("written", "wide"),
    [
        ("- a\n\n  more\n- b", "- a\n\n    more\n\n- b"),
        ("- a\n  - b\n    c", "- a\n    - b\n        c"),
        ("1. a\n\n   more", "1. a\n\n    more"),
        ("- a\n\n  ```py\n  if a:\n      b\n  ```\n  c", "- a\n\n    ```py\n    if a:\n        b\n    ```\n    c"),
        ("- a\nstill a\n  too", "- a\nstill a\n    too"),
        ("- a\n\ntext\n  text", "- a\n\ntext\n  text"),
        ("```\n- a\n  b\n```", "```\n- a\n  b\n```"),
    ],
)
def test_what_belongs_to_an_item_is_indented_by_four_spaces(written, wide):
    assert with_wide_indents(written) == wide


def test_an_item_that_has_become_text_is_recognized():
    assert BROKEN_ITEM.search("<p>more\n- <strong>b</strong></p>")
    assert not BROKEN_ITEM.search("<ul>\n<li>b</li>\n</ul>")


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Tenancy: who may see what", "tenancy-who-may-see-what"),
        ("agents_chat AGENT [--user USERNAME]", "agents_chat-agent---user-username"),
        ("The AI SDK's endpoint", "the-ai-sdks-endpoint"),
    ],
)
def test_a_heading_has_the_anchor_that_github_gives_it(heading, anchor):
    assert slug(heading, "-") == anchor


def test_the_cells_of_a_wide_table_name_their_columns():
    head = "<thead><tr><th>key</th><th><code>a</code></th><th></th></tr></thead>"
    row = "<tr><td>1</td><td>2</td><td>3</td></tr>"
    named = '<tr><td data-label="">1</td><td data-label="a">2</td><td data-label="">3</td></tr>'
    assert with_column_names(f"<table>{head}{row}{row}</table>") == f"<table data-wide>{head}{named}{named}</table>"


def test_a_table_of_two_columns_stays_as_it_is():
    html = "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>"
    assert with_column_names(html) == html


def test_a_state_diagram_becomes_a_table_of_its_transitions():
    source = "stateDiagram-v2\n    [*] --> completed: create_thread\n    completed --> streaming: a < b\n"
    rows = [
        "<tr><td>a new thread</td><td><code>completed</code></td><td>create_thread</td></tr>",
        "<tr><td><code>completed</code></td><td><code>streaming</code></td><td>a &lt; b</td></tr>",
    ]
    assert "".join(rows) in as_table(source, "mermaid", "mermaid", {}, None)
