"""The page that shows the schema to people: whole, safe under any policy, and only for those who want to read."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders

from durable_agents.api.openapi.page import page_of, prose
from tests.api.calls import Api

pytestmark = pytest.mark.django_db
SHEET = "durable_agents/api.css"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def get(accept=None, **query):
    """Ask for the schema as a client that accepts this."""
    headers = {} if accept is None else {"Accept": accept}
    return Api().client.get("/agents/schema/", query, headers=headers)


class Read(HTMLParser):
    """What a page consists of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.ids, self.links = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note a tag, and check that it is closed in turn."""
        given = dict(attrs)
        self.tags.append((tag, given))
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        if tag not in {"meta", "link", "wbr"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        """The last one that was opened."""
        assert self.open.pop() == tag


@pytest.fixture
def page():
    """Return the page as a browser gets it."""
    return get(BROWSER).content.decode()


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/*", "image/png", "", "nonsense"])
def test_programs_get_the_document(accept):
    """Whatever they accept, as ever."""
    response = get(accept)
    assert response["Content-Type"] == "application/json"
    assert "Accept" in response["Vary"].split(", ")
    assert response.json()["openapi"].startswith("3.")


@pytest.mark.parametrize("accept", [BROWSER, "text/html", "text/html;q=0.9, application/json;q=0.8"])
def test_browsers_get_a_page(accept):
    """And the document where they ask for it."""
    response = get(accept)
    assert response["Content-Type"] == "text/html; charset=utf-8"
    assert "Accept" in response["Vary"]
    assert get(accept, format="json")["Content-Type"] == "application/json"


def test_every_operation_is_shown_whole(page):
    """With its path, its parameters, its errors and its examples."""
    document = get().json()
    text = re.sub(r"<[^>]*>", "", page).replace("&quot;", '"').replace("&#x27;", "'")
    for path, item in document["paths"].items():
        assert path in text
        for described in item.values():
            article = page.split(f'id="{described["operationId"]}"')[1].split("</article>")[0]
            for parameter in described.get("parameters", []):
                assert f"<code>{parameter['name']}</code>" in article
            for status, said in described["responses"].items():
                assert f">{status}<" in article
                for content in said.get("content", {}).values():
                    for shown in content.get("examples", {}).values():
                        word = shown["value"]["code"] if status >= "400" else next(iter(shown["value"]))
                        assert word in article
    for name in document["components"]["schemas"]:
        assert f'id="shape-{name}"' in page


def test_it_is_well_formed_and_its_links_lead_somewhere(page):
    """Every anchor is there, and there once."""
    read = Read(page)
    assert read.open == []
    assert len(read.ids) == len(set(read.ids))
    inside = {link.removeprefix("#") for link in read.links if link.startswith("#")}
    assert inside <= set(read.ids)
    assert [link for link in read.links if not link.startswith("#")] == [
        "/static/durable_agents/api.css",
        "?format=json",
    ]


def test_a_strict_content_security_policy_has_nothing_against_it(page):
    """No script, no inline style, nothing from elsewhere."""
    read = Read(page)
    assert not {tag for tag, _ in read.tags} & {"script", "style", "iframe", "img", "form"}
    assert not any(name == "style" or name.startswith("on") for _, given in read.tags for name in given)
    assert not re.search(r"url\(|@import", Path(finders.find(SHEET)).read_text(encoding="utf-8"))


def test_text_of_the_schema_cannot_become_markup():
    """Whoever wrote it."""
    evil = "<script>alert(1)</script>"
    assert str(prose(f"a `{evil}` b {evil}")) == (
        "a <code>&lt;script&gt;alert(1)&lt;/script&gt;</code> b &lt;script&gt;alert(1)&lt;/script&gt;"
    )
    shape = {"type": "object", "properties": {evil: {"type": evil, "description": evil, "enum": [evil]}}}
    info = {"title": "t", "version": "1", "description": evil}
    made = page_of({"info": info, "tags": [], "paths": {}, "components": {"schemas": {"Evil": shape}}})
    [field] = made["shapes"][0].fields
    assert "<script>" not in f"{field.kind}{field.about}{made['about']}"


def test_nested_fields_are_named_by_where_they_are():
    """In objects and in lists of them."""
    inner = {"type": "object", "properties": {"b": {"type": "string", "nullable": True, "maxLength": 3}}}
    shape = {
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": inner,
            "c": {"type": "array", "items": inner},
            "d": {"allOf": [{"$ref": "#/components/schemas/X"}]},
        },
    }
    made = page_of(
        {
            "info": {"title": "t", "version": "1", "description": ""},
            "tags": [],
            "paths": {},
            "components": {"schemas": {"S": shape}},
        }
    )
    fields = made["shapes"][0].fields
    assert [(field.name, str(field.kind), field.is_required) for field in fields] == [
        ("a", "object", True),
        ("a.b", "string or null", False),
        ("c", "list of object", False),
        ("c[].b", "string or null", False),
        ("d", '<a href="#shape-X">X</a>', False),
    ]
    assert str(fields[1].about) == "At most 3 characters."
