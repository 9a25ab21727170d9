"""How the log of a process under test looks: as the demo's, with times to the millisecond."""

import logging

from demo_project.logs import FactsFormatter


class TimedFormatter(FactsFormatter):
    """Seconds since 1970 instead of the time of day: tests compare them."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """Return when the record was made."""
        return f"{record.created:.3f}"
