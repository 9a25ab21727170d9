"""How the demo's terminal shows a log record: one line, with the facts that `durable_agents` attaches."""

import logging

FACTS = ("thread", "stream", "attempt", "fence", "tool_call")
WIDTH = 8


class FactsFormatter(logging.Formatter):
    """Time, level, message, and each fact of the record as `name=value`, ids cut to what tells them apart."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging calls
        """Return the line of `record`; the standard library's own `thread` is no fact, and a number."""
        facts = [(name, getattr(record, name, None)) for name in FACTS]
        shown = [f" {name}={str(value)[:WIDTH]}" for name, value in facts if value is not None]
        return super().formatMessage(record) + "".join(shown if hasattr(record, "action") else ())
