"""Format log records for the demo's terminal: one line each, with the facts that `durable_agents` attaches."""

import logging
from collections.abc import Iterator

FACTS = ("thread", "stream", "attempt", "fence", "tool_call")
WIDTH = 8


class FactsFormatter(logging.Formatter):
    """Formats time, level, message, and each fact of the record as `name=value`, cut to `WIDTH` characters."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging calls
        """Return the line for `record`, including its facts if the record is from `durable_agents`."""
        shown = [f" {name}={value[:WIDTH]}" for name, value in facts_of(record)] if hasattr(record, "action") else []
        return super().formatMessage(record) + "".join(shown)


def facts_of(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    """Yield the facts of `record`. If `thread` is a number, it is no fact: the standard library sets it to the
    operating system's thread id in records that belong to no conversation.
    """
    for name in FACTS:
        value = getattr(record, name, None)
        if value is not None and (name != "thread" or isinstance(value, str)):
            yield name, str(value)
