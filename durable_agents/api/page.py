"""Hides how the OpenAPI schema becomes a page for people: what the template shows, worked out from the document.

The page is plain HTML with one style sheet: no script, nothing from elsewhere, so that a strict
Content-Security-Policy has nothing against it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from rest_framework.request import Request

Schema = Mapping[str, Any]

_SHAPES = "#/components/schemas/"
_CODE = re.compile(r"``(.+?)``|`(.+?)`", re.DOTALL)
_LIMITS = {
    "maxLength": "at most {} characters",
    "minLength": "at least {} characters",
    "maximum": "at most {}",
    "minimum": "at least {}",
    "maxItems": "at most {} items",
}
_FIRST_REFUSAL = 400
"""Statuses below it are of success."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A parameter, or a field of a shape. ``kind`` says of what type it is, with a link to a shape."""

    name: str
    kind: SafeString
    about: SafeString
    is_required: bool
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What is sent or answered in one media type."""

    media_type: str
    kind: SafeString
    fields: list[Field]
    example: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is answered with one status of success."""

    status: str
    about: SafeString
    contents: list[Content]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An example of what is answered with these statuses."""

    statuses: list[str]
    text: str


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One error."""

    status: str
    code: str
    meaning: SafeString


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One operation."""

    anchor: str
    method: str
    path: SafeString
    summary: SafeString
    about: SafeString
    parameters: list[Field]
    body: Content | None
    answers: list[Answer]
    samples: list[Sample]
    refusals: list[Refusal]
    statuses: list[str]


@dataclass(frozen=True, kw_only=True)
class Heading:
    """Operations that belong together."""

    anchor: str
    name: str
    about: SafeString
    entries: list[Entry]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A named object."""

    anchor: str
    name: str
    about: SafeString
    fields: list[Field]


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A way to sign in."""

    name: str
    about: str


def wants_page(request: Request) -> bool:
    """Whether the caller would rather read than parse: browsers name HTML first. ``?format=json`` has the document."""
    preferred = request._request.get_preferred_type(["application/json", "text/html"])
    return preferred == "text/html" and "format" not in request.query_params


def page_response(request: Request, document: Schema) -> HttpResponse:
    """The page that shows the document."""
    return TemplateResponse(request._request, "durable_agents/api/page.html", page_of(document)).render()


def page_of(document: Schema) -> dict[str, Any]:
    """What the template is given."""
    operations = [
        (described["tags"][0], _entry(path, method, described))
        for path, item in document["paths"].items()
        for method, described in item.items()
    ]
    components = document.get("components", {})
    return {
        "title": document["info"]["title"],
        "version": document["info"]["version"],
        "about": [prose(text) for text in document["info"]["description"].strip().split("\n\n")],
        "headings": [_heading(tag, operations) for tag in document["tags"]],
        "shapes": [_shape(name, schema) for name, schema in sorted(components.get("schemas", {}).items())],
        "schemes": [_scheme(name, scheme) for name, scheme in components.get("securitySchemes", {}).items()],
    }


def prose(text: str) -> SafeString:
    """Text in which what stands between backticks is code."""
    pieces = _CODE.split(" ".join(text.split()))
    marked = ((pieces[at], pieces[at + 1] or pieces[at + 2]) for at in range(0, len(pieces) - 1, 3))
    return format_html("{}{}", format_html_join("", "{}<code>{}</code>", marked), pieces[-1])


def _heading(tag: Schema, operations: list[tuple[str, Entry]]) -> Heading:
    return Heading(
        anchor=_anchor(tag["name"]),
        name=tag["name"],
        about=prose(tag["description"]),
        entries=[entry for name, entry in operations if name == tag["name"]],
    )


def _entry(path: str, method: str, described: Schema) -> Entry:
    answers, refusals = list(_answers(described["responses"])), list(_refusals(described["responses"]))
    bodies = list(_contents(described.get("requestBody", {})))
    first, _, rest = " ".join(described["description"].split()).partition(". ")
    return Entry(
        anchor=described["operationId"],
        method=method.upper(),
        path=_marked_path(path),
        summary=prose(first.removesuffix(".")),
        about=prose(rest),
        parameters=[_parameter(parameter) for parameter in described.get("parameters", [])],
        body=bodies[0] if bodies else None,
        answers=answers,
        samples=list(_samples(answers)),
        refusals=refusals,
        statuses=list(dict.fromkeys(refusal.status for refusal in refusals)),
    )


def _marked_path(path: str) -> SafeString:
    """The path, in which its parameters stand out and lines may break after slashes."""
    pieces = re.split(r"(\{\w+\}|/)", path)
    forms = {"/": "/<wbr>", "{": "<var>{}</var>"}
    return format_html_join("", "{}", ((format_html(forms.get(piece[:1], "{}"), piece),) for piece in pieces if piece))


def _parameter(parameter: Schema) -> Field:
    return _field(
        parameter["name"],
        parameter["schema"] | {"description": parameter.get("description", "")},
        is_required=parameter.get("required", False),
        place=parameter["in"],
    )


def _answers(responses: Mapping[str, Schema]) -> Iterator[Answer]:
    for status, said in responses.items():
        if int(status) < _FIRST_REFUSAL:
            yield Answer(status=status, about=prose(said["description"]), contents=list(_contents(said)))


def _samples(answers: Sequence[Answer]) -> Iterator[Sample]:
    """The examples, each once."""
    texts = dict.fromkeys(content.example for answer in answers for content in answer.contents if content.example)
    for text in texts:
        statuses = [answer.status for answer in answers if text in {content.example for content in answer.contents}]
        yield Sample(statuses=statuses, text=text)


def _refusals(responses: Mapping[str, Schema]) -> Iterator[Refusal]:
    for status, said in responses.items():
        if int(status) < _FIRST_REFUSAL:
            continue
        for content in said["content"].values():
            for shown in content["examples"].values():
                yield Refusal(status=status, code=shown["value"]["code"], meaning=prose(shown["summary"]))


def _contents(said: Schema) -> Iterator[Content]:
    for media_type, content in said.get("content", {}).items():
        shown = next((item["value"] for item in content.get("examples", {}).values()), None)
        yield Content(
            media_type=media_type,
            kind=_kind(content["schema"]),
            fields=list(_fields(content["schema"])),
            example="" if shown is None else json.dumps(shown, indent=2, ensure_ascii=False),
        )


def _shape(name: str, schema: Schema) -> Shape:
    about, fields = prose(schema.get("description", "")), list(_fields(schema))
    return Shape(anchor=_shape_anchor(name), name=name, about=about, fields=fields)


def _fields(schema: Schema, within: str = "") -> Iterator[Field]:
    """The fields of an object, and after each of them those within it."""
    for name, inner in schema.get("properties", {}).items():
        full = f"{within}{name}"
        yield _field(full, inner, is_required=name in schema.get("required", ()))
        nested = inner.get("items", inner)
        for alternative in nested.get("oneOf", [nested]):
            yield from _fields(alternative, f"{full}[]." if "items" in inner else f"{full}.")


def _field(name: str, schema: Schema, *, is_required: bool, place: str = "") -> Field:
    limits = [words.format(schema[limit]) for limit, words in _LIMITS.items() if limit in schema]
    values = [f"`{value}`" for value in schema.get("enum", ()) if value not in ("", None)]
    about = [_own_words(schema.get("description", ""))]
    about += [f"One of {', '.join(values)}."] if values else []
    about += [f"{'; '.join(limits).capitalize()}."] if limits else []
    text = " ".join(part for part in about if part)
    return Field(name=name, kind=_kind(schema), about=prose(text), is_required=is_required, place=place)


def _own_words(description: str) -> str:
    """What is said of a field, without the list of values that drf-spectacular adds to it."""
    return description.partition("* `")[0].strip()


def _kind(schema: Schema) -> SafeString:
    """The type in words, with a link to a named shape."""
    ending = " or null" if schema.get("nullable") else ""
    named = next((inner["$ref"] for inner in (schema, *schema.get("allOf", ())) if "$ref" in inner), None)
    if named:
        name = named.removeprefix(_SHAPES)
        return format_html('<a href="#{}">{}</a>{}', _shape_anchor(name), name, ending)
    if schema.get("type") == "array":
        return format_html("list of {}{}", _kind(schema.get("items", {})), ending)
    return format_html("{}{}", schema.get("format") or schema.get("type") or _untyped(schema), ending)


def _untyped(schema: Schema) -> str:
    return "object" if "oneOf" in schema else "any JSON"


def _scheme(name: str, scheme: Schema) -> Scheme:
    place = f"the {scheme['in']} {scheme['name']}" if "name" in scheme else "the header Authorization"
    return Scheme(name=name, about=" ".join([f"In {place}.", scheme.get("description", "")]))


def _shape_anchor(name: str) -> str:
    return f"shape-{name}"


def _anchor(name: str) -> str:
    return "about-" + name.lower().replace(" ", "-")
