"""Store times as instants in every database, whatever ``USE_TZ`` is, and write them with their offset.

With ``USE_TZ = False`` Django keeps naive local times on SQLite, while the database's own clock (``Now()``) is in UTC
there; and in any database a local time is ambiguous for an hour each autumn. So rows hold UTC, and attributes hold what
the project expects: aware times, or with ``USE_TZ = False`` naive ones in ``TIME_ZONE``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import functions
from django.utils import timezone

from durable_agents.conf import uses_time_zones


def instant(moment: datetime) -> datetime:
    """Return the same time in UTC; a naive one is in ``TIME_ZONE``."""
    aware = moment.replace(tzinfo=timezone.get_default_timezone()) if timezone.is_naive(moment) else moment
    return aware.astimezone(UTC)


def as_expected(moment: datetime) -> datetime:
    """Return the same time in the form that ``USE_TZ`` requires: aware, or naive in ``TIME_ZONE``."""
    if uses_time_zones():
        return instant(moment)
    # Not make_naive(): ``fold`` has to stay, by which the two equal hours of an autumn night differ.
    return instant(moment).astimezone(timezone.get_default_timezone()).replace(tzinfo=None)


def later(moment: datetime, wait: timedelta) -> datetime:
    """Return the time so much later, also across changes of the clock."""
    return as_expected(instant(moment) + wait)


def to_iso(moment: datetime) -> str:
    """Return the time in ISO 8601, in UTC and with its offset."""
    return instant(moment).isoformat()


def to_iso_or_none(moment: datetime | None) -> str | None:
    """Return the same, or None for None."""
    return None if moment is None else to_iso(moment)


class InstantField(models.DateTimeField):  # type: ignore[type-arg]
    """A DateTimeField whose column holds UTC in every database; to migrations it is a plain one."""

    def deconstruct(self) -> tuple[str, str, Sequence[object], dict[str, object]]:
        """See Field."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, kwargs

    def get_db_prep_value(
        self,
        value: object,
        connection: BaseDatabaseWrapper,
        prepared: bool = False,  # noqa: FBT001, FBT002
    ) -> object:
        """See Field. Takes aware and naive times, whatever ``USE_TZ`` is."""
        value = value if prepared else self.get_prep_value(value)
        if not isinstance(value, datetime):
            return super().get_db_prep_value(value, connection, prepared=True)
        moment = instant(value)
        if connection.vendor == "sqlite":  # has no type for times: texts of one form compare as the times do
            return str(moment.replace(tzinfo=None))
        return moment

    def from_db_value(self, value: object, expression: object, connection: BaseDatabaseWrapper) -> object:
        """See Field. On SQLite Django has taken the column's UTC for a time of the connection's zone."""
        if connection.vendor != "sqlite" or not isinstance(value, datetime) or value.tzinfo is UTC:
            return value
        return as_expected(value.replace(tzinfo=UTC))


class Now(functions.Now):
    """The database's clock, for annotations: loaded like the columns."""

    output_field = InstantField()
