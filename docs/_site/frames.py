"""Write the reference of the websocket frames in Markdown, from their JSON schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]
SCHEMA = Path(__file__).resolve().parents[2] / "durable_agents/static/durable_agents/websocket.schema.json"
SIDES = {"client": "Frames from the client", "server": "Frames from the server"}


@cache
def _definitions() -> dict[str, Any]:
    return dict(json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"])


def frame_names() -> dict[str, list[str]]:
    """Return the types of the frames that each side sends."""
    return {side: [_type_of(frame) for frame in _definitions()[side]["oneOf"]] for side in SIDES}


def frame_reference() -> str:
    """Return an entry for each frame of each side, and for each type to which the frames refer."""
    written = []
    for side, title in SIDES.items():
        written += [f"## {title}", *(_frame_entry(side, frame) for frame in _definitions()[side]["oneOf"])]
    shared = {name: schema for name, schema in _definitions().items() if name not in SIDES}
    written += ["## Types", *(_type_entry(name, schema) for name, schema in shared.items())]
    return "\n\n".join(written)


def _type_of(frame: Schema) -> str:
    return str(frame["properties"]["type"]["const"])


def _frame_entry(side: str, frame: Schema) -> str:
    name = _type_of(frame)
    rows = {key: value for key, value in frame["properties"].items() if key != "type"}
    return "\n\n".join(
        filter(None, [f"### {name} {{ #{side}-{name} }}", frame.get("description", ""), _table(rows, frame)])
    )


def _type_entry(name: str, schema: Schema) -> str:
    written = [f"### {name} {{ #type-{name} }}", schema.get("description", "")]
    choices = schema.get("oneOf", [])
    if "properties" in schema:
        written.append(_table(schema["properties"], schema))
    elif choices and all("const" in choice for choice in choices):
        rows = [f"| {_type_name(choice)} | {choice.get('description', '')} |" for choice in choices]
        written.append("\n".join(["| value | |", "|---|---|", *rows]))
    else:
        written.append(f"Type: {_type_name(schema)}")
    return "\n\n".join(filter(None, written))


def _table(properties: Schema, owner: Schema) -> str:
    if not properties:
        return "No other fields."
    rows = ["| field | type | |", "|---|---|---|"]
    for name, schema in properties.items():
        optional = [] if name in owner.get("required", []) else ["optional"]
        said = "; ".join([*optional, *filter(None, [schema.get("description", "")])])
        rows.append(f"| `{name}` | {_type_name(schema)} | {said} |")
        for inner, inner_schema in schema.get("properties", {}).items():
            inner_optional = "" if inner in schema.get("required", []) else "optional; "
            inner_said = f"{inner_optional}{inner_schema.get('description', '')}".removesuffix("; ")
            rows.append(f"| `{name}.{inner}` | {_type_name(inner_schema)} | {inner_said} |")
    return "\n".join(rows)


def _type_name(schema: Schema) -> str:
    """Return a type in words, with a link if it is defined on the page."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#type-{name})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_type_name(one) for one in schema[several])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    kinds = schema.get("type", "any value")
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    items = schema.get("items")
    return " or ".join(f"array of {_type_name(items)}" if name == "array" and items else name for name in names)
