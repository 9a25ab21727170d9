"""The published JSON schema of the frames, as strictly as our own two sides have to keep to it."""

import json
from typing import Any

import jsonschema

from tests.processes import ROOT

SCHEMA: dict[str, Any] = json.loads(
    (ROOT / "durable_agents/static/durable_agents/websocket.schema.json").read_text(encoding="utf-8")
)

CLOSE_CODES: list[int] = [entry["const"] for entry in SCHEMA["$defs"].get("closeCode", {}).get("oneOf", [])]


def strict(value: Any) -> Any:
    """Return a schema that allows no field beyond those it names."""
    if isinstance(value, list):
        return [strict(item) for item in value]
    if not isinstance(value, dict):
        return value
    made = {name: strict(item) for name, item in value.items()}
    if made.get("type") == "object" and "properties" in made:
        made["additionalProperties"] = False
    return made


def types(side: str) -> set[str]:
    """Return the types of frames that a side sends, by the schema."""
    return {frame["properties"]["type"]["const"] for frame in SCHEMA["$defs"][side]["oneOf"]}


_VALIDATORS = {
    side: jsonschema.Draft202012Validator({**strict(SCHEMA), "$ref": f"#/$defs/{side}"})
    for side in ("client", "server")
}


def check(side: str, frame: dict[str, Any]) -> None:
    """Hold a frame against what the schema says of its type."""
    assert frame["type"] in types(side), f"the schema names no {frame['type']!r} of the {side}"
    error = jsonschema.exceptions.best_match(_VALIDATORS[side].iter_errors(frame))
    assert error is None, f"{error.message if error else ''}: {frame}"
