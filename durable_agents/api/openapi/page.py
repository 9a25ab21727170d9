"""Render the OpenAPI schema as an HTML page.

The page is plain HTML with one style sheet. It contains no script and loads nothing from other sites, so it works under
a strict Content-Security-Policy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
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
"""The lowest HTTP status of an error response."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A parameter, or a field of an object. ``kind`` is its type. For a named schema, ``kind`` is a link to the
    schema.
    """

    name: str
    kind: SafeString
    about: SafeString
    is_required: bool
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class Content:
    """A request or response body in one media type."""

    media_type: str
    kind: SafeString
    fields: list[Field]
    example: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A success response."""

    status: str
    about: SafeString
    contents: list[Content]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An example response body, with the HTTP statuses that it belongs to."""

    statuses: list[str]
    text: str


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One error response."""

    status: str
    code: str
    meaning: SafeString


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One operation of the API, as the page shows it."""

    anchor: str
    method: str
    path: SafeString
    summary: SafeString
    about: SafeString
    parameters: list[Field]
    body: Content | None
    answers: list[Answer]
    refusals: list[Refusal]

    @property
    def samples(self) -> list[Sample]:
        """The examples of the responses, without duplicates."""
        shown = [(answer.status, content.example) for answer in self.answers for content in answer.contents]
        texts = dict.fromkeys(text for _, text in shown if text)
        return [Sample(statuses=[status for status, other in shown if other == text], text=text) for text in texts]

    @property
    def statuses(self) -> list[str]:
        """The statuses of the errors, without duplicates."""
        return list(dict.fromkeys(refusal.status for refusal in self.refusals))


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A section of the page: its title and its operations."""

    anchor: str
    name: str
    about: SafeString
    entries: list[Entry]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A named schema, as the page shows it."""

    anchor: str
    name: str
    about: SafeString
    fields: list[Field]


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """An authentication scheme."""

    name: str
    about: str


def wants_page(request: Request) -> bool:
    """Return whether the caller prefers HTML, as browsers do. ``?format=json`` always selects JSON."""
    # Read the Accept header directly, because the content negotiation of this API always chooses JSON.
    preferred = request._request.get_preferred_type(["application/json", "text/html"])
    return preferred == "text/html" and "format" not in request.query_params


def page_response(request: Request, document: Schema) -> HttpResponse:
    """Return a response with the HTML page of this OpenAPI document."""
    return TemplateResponse(request._request, "durable_agents/api/page.html", page_of(document)).render()


def page_of(document: Schema) -> dict[str, object]:
    """Return the context for the template of the page."""
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
        "headings": [
            Heading(
                anchor="about-" + tag["name"].lower().replace(" ", "-"),
                name=tag["name"],
                about=prose(tag["description"]),
                entries=[entry for name, entry in operations if name == tag["name"]],
            )
            for tag in document["tags"]
        ],
        "shapes": [
            Shape(
                anchor=_shape_anchor(name),
                name=name,
                about=prose(schema.get("description", "")),
                fields=list(_fields(schema)),
            )
            for name, schema in sorted(components.get("schemas", {}).items())
        ],
        "schemes": [_scheme(name, scheme) for name, scheme in components.get("securitySchemes", {}).items()],
    }


def prose(text: str) -> SafeString:
    """Return the text as HTML, with the words in backticks as ``<code>``."""
    pieces = _CODE.split(" ".join(text.split()))
    marked = ((pieces[at], pieces[at + 1] or pieces[at + 2]) for at in range(0, len(pieces) - 1, 3))
    return format_html("{}{}", format_html_join("", "{}<code>{}</code>", marked), pieces[-1])


def _entry(path: str, method: str, described: Schema) -> Entry:
    answers = [
        Answer(status=status, about=prose(response["description"]), contents=list(_contents(response)))
        for status, response in described["responses"].items()
        if int(status) < _FIRST_REFUSAL
    ]
    refusals = [
        Refusal(status=status, code=shown["value"]["code"], meaning=prose(shown["summary"]))
        for status, response in described["responses"].items()
        if int(status) >= _FIRST_REFUSAL
        for content in response["content"].values()
        for shown in content["examples"].values()
    ]
    bodies = list(_contents(described.get("requestBody", {})))
    first, _, rest = " ".join(described["description"].split()).partition(". ")
    return Entry(
        anchor=described["operationId"],
        method=method.upper(),
        path=_marked_path(path),
        summary=prose(first.removesuffix(".")),
        about=prose(rest),
        parameters=[
            _field(
                parameter["name"],
                parameter["schema"] | {"description": parameter.get("description", "")},
                is_required=parameter.get("required", False),
                place=parameter["in"],
            )
            for parameter in described.get("parameters", [])
        ],
        body=bodies[0] if bodies else None,
        answers=answers,
        refusals=refusals,
    )


def _marked_path(path: str) -> SafeString:
    """Return the path as HTML, with its parameters marked. Browsers may break the line after each slash."""
    # Browsers do not break a long path by themselves. On a phone, an unbroken path would be wider than the screen.
    pieces = re.split(r"(\{\w+\}|/)", path)
    forms = {"/": "/<wbr>", "{": "<var>{}</var>"}
    return format_html_join("", "{}", ((format_html(forms.get(piece[:1], "{}"), piece),) for piece in pieces if piece))


def _contents(response: Schema) -> Iterator[Content]:
    for media_type, content in response.get("content", {}).items():
        shown = next((item["value"] for item in content.get("examples", {}).values()), None)
        yield Content(
            media_type=media_type,
            kind=_kind(content["schema"]),
            fields=list(_fields(content["schema"])),
            example="" if shown is None else json.dumps(shown, indent=2, ensure_ascii=False),
        )


def _fields(schema: Schema, within: str = "") -> Iterator[Field]:
    """Yield the fields of an object, and after each field its nested fields."""
    for name, inner in schema.get("properties", {}).items():
        full = f"{within}{name}"
        yield _field(full, inner, is_required=name in schema.get("required", ()))
        nested = inner.get("items", inner)
        for alternative in nested.get("oneOf", [nested]):
            yield from _fields(alternative, f"{full}[]." if "items" in inner else f"{full}.")


def _field(name: str, schema: Schema, *, is_required: bool, place: str = "") -> Field:
    limits = [words.format(schema[limit]) for limit, words in _LIMITS.items() if limit in schema]
    values = [f"`{value}`" for value in schema.get("enum", ()) if value not in ("", None)]
    # For a field with choices, drf-spectacular appends the choices to the description. Remove them, because the next
    # line adds them in another form.
    about = [schema.get("description", "").partition("* `")[0].strip()]
    about += [f"One of {', '.join(values)}."] if values else []
    about += [f"{'; '.join(limits).capitalize()}."] if limits else []
    text = " ".join(part for part in about if part)
    return Field(name=name, kind=_kind(schema), about=prose(text), is_required=is_required, place=place)


def _kind(schema: Schema) -> SafeString:
    """Return the type in words, or a link if the type is a named schema."""
    ending = " or null" if schema.get("nullable") else ""
    # In OpenAPI 3.0, an object with a ``$ref`` cannot have other keys. If a field also needs other keys, such as
    # ``nullable``, drf-spectacular puts the ``$ref`` into ``allOf``.
    named = next((inner["$ref"] for inner in (schema, *schema.get("allOf", ())) if "$ref" in inner), None)
    if named:
        name = named.removeprefix(_SHAPES)
        return format_html('<a href="#{}">{}</a>{}', _shape_anchor(name), name, ending)
    if schema.get("type") == "array":
        return format_html("list of {}{}", _kind(schema.get("items", {})), ending)
    untyped = "object" if "oneOf" in schema else "any JSON"
    return format_html("{}{}", schema.get("format") or schema.get("type") or untyped, ending)


def _scheme(name: str, scheme: Schema) -> Scheme:
    place = f"the {scheme['in']} {scheme['name']}" if "name" in scheme else "the header Authorization"
    return Scheme(name=name, about=" ".join([f"In {place}.", scheme.get("description", "")]))


def _shape_anchor(name: str) -> str:
    return f"shape-{name}"
