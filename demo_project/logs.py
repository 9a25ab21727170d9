"""Format log records for the demo's terminal: one line each, with the extra fields that `durable_agents` attaches."""

import logging
from collections.abc import Iterator

FACTS = ("thread", "stream", "attempt", "fence", "tool_call")
WIDTH = 8


class FactsFormatter(logging.Formatter):
    """A formatter that appends the record's extra fields as `name=value`, cut to `WIDTH` characters per value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging calls
        """Return the line for `record`. Append the extra fields if the record comes from `durable_agents`."""
        shown = [f" {name}={value[:WIDTH]}" for name, value in facts_of(record)] if hasattr(record, "action") else []
        return super().formatMessage(record) + "".join(shown)


def facts_of(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    """Yield the name and value of each extra field of `record`. A numeric `thread` is skipped, because it comes from
    the standard library and identifies an OS thread, not a conversation.
    """
    for name in FACTS:
        value = getattr(record, name, None)
        if value is not None and (name != "thread" or isinstance(value, str)):
            yield name, str(value)
