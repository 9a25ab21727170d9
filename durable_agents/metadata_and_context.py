"""Convert the ``metadata`` and ``context`` that a project passes to JSON objects."""

from __future__ import annotations

from collections.abc import Mapping

from durable_agents.exceptions import InvalidJSONObjectError
from durable_agents.strictjson import JSON, clean


def json_object(name: str, value: object) -> dict[str, JSON]:
    """Return the value as a JSON object that every database can store. None becomes an empty object. Dates, decimals,
    UUIDs and similar values get their usual JSON form.

    Raises InvalidJSONObjectError if the value is not a mapping, or contains something without a JSON form, such as a
    model instance. ``name`` names the value in the error message.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidJSONObjectError(name, f"it is a {type(value).__name__}")
    found: dict[str, JSON] = {}
    for key, item in value.items():
        try:
            found |= clean({key: item})
        except (TypeError, RecursionError) as error:
            raise InvalidJSONObjectError(name, f"its value of {key!r} cannot be stored, {error}") from error
    return found
