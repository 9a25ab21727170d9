"""Write the reference of a JavaScript module in Markdown, from its ``.d.ts`` file and ``custom-elements.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from docs._site.typescript import Declaration, comments_of_constants, declarations

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "durable_agents" / "static" / "durable_agents"
MODULES = {
    "durable-agents": "django-durable-agents",
    "react": "django-durable-agents/react",
    "element": "django-durable-agents/element",
    "ai-sdk": "django-durable-agents/ai-sdk",
    "markdown": "django-durable-agents/markdown",
}
"""The modules, each with the name under which scripts import it."""
FIRST = ("createClient", "useAgentChat", "createChat")
"""What most readers look for stands first on its page."""
ELEMENT_TABLES = {
    "attributes": ("Attributes", "attribute"),
    "events": ("Events", "event"),
    "slots": ("Slots", "slot"),
}
STORE_NAMES = {"sendMessage": "send"}
"""Members of hooks whose names differ from those of the store."""
_ELSEWHERE = re.compile(r'import\("django-durable-agents"\)\.(\w+)$')


def module_reference(name: str) -> str:
    """Return the entries of a module: its functions and classes, and the types to which these refer."""
    found = {one.name: one for one in _declared(name)}
    elements = _elements() if name == "element" else {}
    values = [one for one in found.values() if one.is_exported and one.kind != "type"]
    values.sort(key=lambda one: one.name not in FIRST)
    written = ["## Functions and classes" if name != "element" else "## Elements"]
    written += [_element_entry(elements[one.name]) if one.name in elements else _entry(one, found) for one in values]
    types = [one for one in _reachable(values, found) if not _ELSEWHERE.search(one.code)]
    if types:
        written += ["## Types", *(_entry(one, found) for one in types)]
    return "\n\n".join(written)


@cache
def _declared(name: str) -> list[Declaration]:
    """Return what a module declares, without the members whose names are shortened in its minified file."""
    comments = comments_of_constants((FOLDER / f"{name}.js").read_text(encoding="utf-8"))
    internal = _internal_names()
    return [
        replace(
            one,
            comment=one.comment if one.comment.text else comments.get(one.name, one.comment),
            members=tuple(member for member in one.members if one.kind != "class" or member.name not in internal),
        )
        for one in declarations((FOLDER / f"{name}.d.ts").read_text(encoding="utf-8"))
    ]


def _internal_names() -> set[str]:
    """Return the names that the build may shorten, so that only the package itself can use them."""
    build = (ROOT / ".ci" / "build.mjs").read_text(encoding="utf-8")
    return set(re.findall(r"(?:INTERNAL =\s+)/\^\(([^)]*)\)\$/", build)[0].split("|"))


def _reachable(values: Iterable[Declaration], found: Mapping[str, Declaration]) -> list[Declaration]:
    """Return the types and classes to which these declarations refer, and those to which these refer in turn."""
    shown = list(values)
    names = {one.name for one in shown}
    for one in shown:
        referred = [found[name] for name in sorted(one.names()) if name in found and name not in names]
        added = [other for other in referred if other.kind in {"type", "class"} and other.name != "DurableElement"]
        names |= {other.name for other in added}
        shown += added
    return [one for one in found.values() if one.name in names and one not in list(values)]


def _entry(one: Declaration, found: Mapping[str, Declaration]) -> str:
    written = [f"### {one.name} {{ #{one.name} }}", _code(one.signature), one.comment.text, _parameters(one)]
    members = [_described(member) if one.name.startswith("use") else member for member in one.members]
    rows = [member for member in members if not _needs_entry(member)]
    if one.kind == "function" and members:
        written.append("The returned object has:")
    if rows:
        written.append(_table(rows))
    written += [_member_entry(one, member) for member in members if _needs_entry(member)]
    written.append(_links(one, found))
    return "\n\n".join(filter(None, written))


def _described(member: Declaration) -> Declaration:
    """Return what a hook passes on, with the text that it has in the store unless it has a text of its own."""
    store = _store_members().get(STORE_NAMES.get(member.name, member.name))
    if member.comment.text or store is None:
        return member
    return replace(member, comment=store.comment)


@cache
def _store_members() -> dict[str, Declaration]:
    """Return the members of a thread's store and of its snapshot, which the hooks pass on under the same names."""
    found = {one.name: one for one in _declared("durable-agents")}
    return {member.name: member for name in ("Snapshot", "ThreadStore") for member in found[name].members}


def _needs_entry(member: Declaration) -> bool:
    """Return whether a member is a function with a description, which would not fit in a row of a table."""
    is_function = "(" in member.code.partition(":")[0] or "=>" in member.code
    return is_function and bool(member.comment.text)


def _member_entry(owner: Declaration, member: Declaration) -> str:
    heading = f"#### {member.name} {{ #{owner.name}.{member.name} }}"
    code = re.sub(r"^ {4}", "", _short(member.code), flags=re.MULTILINE)
    return "\n\n".join(filter(None, [heading, _code(code), member.comment.text, _parameters(member)]))


def _parameters(one: Declaration) -> str:
    lines = [f"- `{name}`: {what}" for name, what in one.comment.parameters.items()]
    if one.comment.returns:
        lines.append(f"- returns: {one.comment.returns}")
    return "\n".join(lines)


def _table(members: Iterable[Declaration]) -> str:
    rows = ["| name | type | |", "|---|---|---|"]
    for member in members:
        name, kind = _split(_short(member.code))
        said = [*(["optional"] if name.endswith("?") else []), " ".join(member.comment.text.split())]
        rows.append(f"| `{member.name}` | `{kind}` | {'; '.join(filter(None, said))} |")
    return "\n".join(rows)


def _split(code: str) -> tuple[str, str]:
    """Return the name and the type of a member, on one line each."""
    code = re.sub(r"^get (\w+)\(\)", r"\1", code)
    name, _, kind = code.partition("(" if "(" in code.partition(":")[0] else ":")
    kind = f"({kind}" if code[len(name)] == "(" else kind
    kind = " ".join(kind.split()).removesuffix(" | undefined")
    is_wrapped = kind.startswith("(") and kind.endswith(")") and kind.count("(") == kind.count(")") == 1
    return name.strip(), kind[1:-1] if is_wrapped and "=>" not in kind else kind


def _short(code: str) -> str:
    """Return the code without the paths of imported types."""
    return re.sub(r'import\("[^"]*"\)\.', "", code)


def _links(one: Declaration, found: Mapping[str, Declaration]) -> str:
    """Return a line with links to the types that the declaration names."""
    links = []
    for name in sorted(one.names() & set(found)):
        elsewhere = _ELSEWHERE.search(found[name].code)
        if elsewhere is not None:
            links.append(f"[`{name}`](javascript.md#{elsewhere[1]})")
        elif found[name].kind in {"type", "class"} and name != "DurableElement":
            links.append(f"[`{name}`](#{name})")
    return f"Types: {', '.join(links)}\n{{ .types }}" if links else ""


def _code(text: str) -> str:
    return f"```ts\n{text}\n```"


@cache
def _elements() -> dict[str, dict[str, Any]]:
    """Return the description of each custom element, by the name of its class."""
    manifest = json.loads((FOLDER / "custom-elements.json").read_text(encoding="utf-8"))
    return {element["name"]: element for module in manifest["modules"] for element in module["declarations"]}


def _element_entry(element: Mapping[str, Any]) -> str:
    tag = element["tagName"]
    written = [f"### {element['name']} {{ #{element['name']} }}", _code(f"<{tag}></{tag}>").replace("```ts", "```html")]
    written.append(element["description"])
    for key, (title, column) in ELEMENT_TABLES.items():
        if element.get(key):
            rows = [f"| `{item['name']}` | {_sentence(item)} |" for item in element[key]]
            written += [f"#### {title} {{ #{tag}-{key} }}", "\n".join([f"| {column} | |", "|---|---|", *rows])]
    public = [member for member in element["members"] if member.get("privacy") != "private"]
    written.append(f"#### Properties and methods {{ #{tag}-members }}")
    rows = [f"| `{_member_signature(member)}` | {_sentence(member)} |" for member in public]
    written.append("\n".join(["| member | |", "|---|---|", *rows]))
    for key, title in {"cssParts": "CSS parts", "cssProperties": "CSS variables"}.items():
        written += [f"#### {title} {{ #{tag}-{key.lower()} }}", ", ".join(f"`{item['name']}`" for item in element[key])]
    return "\n\n".join(written)


def _member_signature(member: Mapping[str, Any]) -> str:
    if member["kind"] == "field":
        return f"{'static ' if member.get('static') else ''}{member['name']}: {member['type']['text']}"
    parameters = ", ".join(
        f"{item['name']}{'?' if item.get('optional') else ''}: {item['type']['text']}"
        for item in member.get("parameters", [])
    )
    returned = member.get("return", {}).get("type", {}).get("text", "void")
    return f"{member['name']}({parameters}): {returned}"


def _sentence(item: Mapping[str, Any]) -> str:
    # Braces in a sentence would be read as attributes of the element.
    text = re.sub(r"\{[^}]*\}", r"`\g<0>`", str(item.get("description", "")))
    return f"{text}; read-only" if item.get("readonly") else text
