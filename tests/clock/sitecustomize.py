"""A clock that is off, for a process that has this folder in its ``PYTHONPATH``: by so many seconds as
``TEST_CLOCK_SECONDS`` says, for Python, Django and SQLite alike. What measures durations runs as ever."""

import os
import time
from datetime import UTC, datetime, timedelta

from django.db.backends.signals import connection_created
from django.utils import timezone

SECONDS = float(os.environ["TEST_CLOCK_SECONDS"])
_time, _time_ns, _now = time.time, time.time_ns, timezone.now


def strftime(form, *moment):
    """SQLite's function of this name, as far as Django asks it for the time."""
    assert moment == ("NOW",), f"strftime{(form, *moment)} is not known to the test's clock"
    now = datetime.now(UTC) + timedelta(seconds=SECONDS)
    return now.strftime(form.replace("%f", "%S.")) + f"{now.microsecond // 1000:03d}"


def shift(connection, **kwargs):
    """Give SQLite the same clock; a server has its own."""
    if connection.vendor == "sqlite":
        connection.connection.create_function("strftime", -1, strftime)


time.time = lambda: _time() + SECONDS
# The times of log records, since Python 3.13.
time.time_ns = lambda: _time_ns() + int(SECONDS * 1e9)
timezone.now = lambda: _now() + timedelta(seconds=SECONDS)
connection_created.connect(shift, weak=False)
