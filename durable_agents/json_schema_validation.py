"""Check JSON values against a JSON schema from elsewhere, such as an MCP server or an OpenAPI document.

The common keywords are checked: types, required properties, allowed values, limits and alternatives. All other
keywords are ignored, including ``pattern`` and ``format``: a regular expression from another server could block the
worker for minutes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import TypeGuard


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


MAX_CHECKS = 20_000
"""The maximum number of schemas that one check visits. The check of a schema that refers to itself could
otherwise be endless.
"""
MAX_DEPTH = 60
_TOO_COMPLEX = "is too deeply nested or too large to be checked"

_TYPES: dict[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_LIMITS: dict[str, tuple[type | tuple[type, ...], Callable[[float, float], bool], str]] = {
    "minimum": ((int, float), operator.ge, "must be at least {}"),
    "maximum": ((int, float), operator.le, "must be at most {}"),
    "exclusiveMinimum": ((int, float), operator.gt, "must be more than {}"),
    "exclusiveMaximum": ((int, float), operator.lt, "must be less than {}"),
    "minLength": (str, operator.ge, "must have at least {} characters"),
    "maxLength": (str, operator.le, "must have at most {} characters"),
    "minItems": (list, operator.ge, "must have at least {} items"),
    "maxItems": (list, operator.le, "must have at most {} items"),
}
"""For each keyword that limits a number or a length: the Python type of the values that the keyword applies to, the
comparison with the limit, and the error.
"""


def problems(value: object, schema: object) -> list[str]:
    """Return the errors in a JSON value as texts for the model. The list is empty if the value is valid."""
    return list(_Check(schema).problems(value, schema, "", depth=0))


def _equals(value: object, other: object) -> bool:
    """Compare two JSON values. Unlike in Python, true does not equal 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


class _Check:
    """One validation. ``root`` is the schema in which references such as ``#/$defs/address`` are looked up."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._checks_left = MAX_CHECKS

    def problems(self, value: object, schema: object, path: str, *, depth: int) -> Iterator[str]:
        """Yield the errors in the value at this path."""
        self._checks_left -= 1
        if depth > MAX_DEPTH or self._checks_left < 0:
            yield f"{path or 'arguments'}: {_TOO_COMPLEX}"
            return
        if schema is False:
            yield f"{path or 'arguments'}: is not allowed"
        if not isinstance(schema, Mapping):
            return
        yield from (f"{path or 'arguments'}: {text}" for text in _own_problems(value, schema))
        if isinstance(reference := schema.get("$ref"), str):
            yield from self.problems(value, self.resolved(reference), path, depth=depth + 1)
        yield from self.of_alternatives(value, schema, path, depth=depth + 1)
        if isinstance(value, dict):
            yield from self.of_object(value, schema, path, depth=depth + 1)
        if isinstance(value, list) and "items" in schema:
            for number, item in enumerate(value):
                yield from self.problems(item, schema["items"], _joined(path, str(number)), depth=depth + 1)

    def of_alternatives(self, value: object, schema: Mapping[str, object], path: str, *, depth: int) -> Iterator[str]:
        for part in _listed(schema.get("allOf")):
            yield from self.problems(value, part, path, depth=depth)
        for keyword in ("anyOf", "oneOf"):
            # Accept a value that matches several schemas of ``oneOf``: servers often write ``oneOf`` when they mean
            # ``anyOf``.
            found = [next(self.problems(value, part, path, depth=depth), None) for part in _listed(schema.get(keyword))]
            if found and all(found):
                yield f"{path or 'arguments'}: matches none of the {len(found)} alternatives ({found[0]})"

    def of_object(
        self, value: Mapping[str, object], schema: Mapping[str, object], path: str, *, depth: int
    ) -> Iterator[str]:
        declared = schema.get("properties")
        properties = declared if isinstance(declared, Mapping) else {}
        for name in _listed(schema.get("required")):
            if isinstance(name, str) and name not in value:
                yield f"{_joined(path, name)}: is required"
        others = True if "patternProperties" in schema else schema.get("additionalProperties", True)
        for name, item in value.items():
            yield from self.problems(item, properties.get(name, others), _joined(path, name), depth=depth)

    def resolved(self, reference: str) -> object:
        """Return the schema that a reference within ``root`` points to. For any other reference, return True, which
        accepts every value.
        """
        if not reference.startswith("#"):
            return True
        found = self._root
        for key in reference.lstrip("#/").split("/") if reference.strip("#/") else []:
            found = found.get(key.replace("~1", "/").replace("~0", "~"), True) if isinstance(found, Mapping) else True
        return found


def _own_problems(value: object, schema: Mapping[str, object]) -> Iterator[str]:
    """Yield the errors of the value itself, without those of its items."""
    names = schema.get("type")
    wanted = [str(name) for name in ([names] if isinstance(names, str) else _listed(names)) if str(name) in _TYPES]
    if wanted and not any(_TYPES[name](value) for name in wanted):
        yield f"must be of the type {' or '.join(wanted)}"
        return
    choices = schema.get("enum")
    if isinstance(choices, list) and not any(_equals(value, choice) for choice in choices):
        yield f"must be one of {', '.join(map(repr, choices[:50]))}"
    if "const" in schema and not _equals(value, schema["const"]):
        yield f"must be {schema['const']!r}"
    for keyword, (applies_to, is_kept, text) in _LIMITS.items():
        limit = schema.get(keyword)
        size = len(value) if isinstance(value, str | list) else value
        if isinstance(value, applies_to) and _is_number(size) and _is_number(limit) and not is_kept(size, limit):
            yield text.format(limit)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _joined(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)
