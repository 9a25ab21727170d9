"""Store times in UTC in every database, whatever ``USE_TZ`` says.

With ``USE_TZ = False``, Django uses local times, which are ambiguous for an hour each autumn. On SQLite, local times
are also stored without a time zone. They cannot be compared with the database's clock (``Now()``), which is in UTC.

Therefore, the columns of this package contain UTC. Model attributes contain aware times with ``USE_TZ = True``, and
naive times in ``TIME_ZONE`` with ``USE_TZ = False``.
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
    """Return the same time in UTC. A naive time is in ``TIME_ZONE``."""
    aware = moment.replace(tzinfo=timezone.get_default_timezone()) if timezone.is_naive(moment) else moment
    return aware.astimezone(UTC)


def as_expected(moment: datetime) -> datetime:
    """Return the same time in the form that ``USE_TZ`` asks for: aware, or naive in ``TIME_ZONE``."""
    if uses_time_zones():
        return instant(moment)
    # Keep ``fold``, which distinguishes the two hours with the same local time in autumn. make_naive() would drop it.
    return instant(moment).astimezone(timezone.get_default_timezone()).replace(tzinfo=None)


def later(moment: datetime, wait: timedelta) -> datetime:
    """Return the time that is ``wait`` later. The result is right even if daylight saving time begins or ends in
    between.
    """
    return as_expected(instant(moment) + wait)


def to_iso(moment: datetime) -> str:
    """Format a time in ISO 8601, in UTC with the offset."""
    return instant(moment).isoformat()


def to_iso_or_none(moment: datetime | None) -> str | None:
    """Do what ``to_iso`` does. None stays None."""
    return None if moment is None else to_iso(moment)


class InstantField(models.DateTimeField):  # type: ignore[type-arg]
    """A DateTimeField whose column contains UTC in every database. Migrations see a plain DateTimeField."""

    def deconstruct(self) -> tuple[str, str, Sequence[object], dict[str, object]]:
        """Show the field to migrations as Django's DateTimeField."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, kwargs

    def get_db_prep_value(
        self,
        value: object,
        connection: BaseDatabaseWrapper,
        prepared: bool = False,  # noqa: FBT001, FBT002
    ) -> object:
        """Convert a time to the form that the column stores. The time may be aware or naive."""
        value = value if prepared else self.get_prep_value(value)
        if not isinstance(value, datetime):
            return super().get_db_prep_value(value, connection, prepared=True)
        moment = instant(value)
        if connection.vendor == "sqlite":
            # SQLite stores times as text. They sort correctly only if all have the same format.
            return str(moment.replace(tzinfo=None))
        return moment

    def from_db_value(self, value: object, expression: object, connection: BaseDatabaseWrapper) -> object:
        """Return the stored time in the form that ``USE_TZ`` asks for.

        On SQLite, Django assumes that the stored time is in the connection's time zone. This method replaces the time
        zone by UTC.
        """
        if connection.vendor != "sqlite" or not isinstance(value, datetime) or value.tzinfo is UTC:
            return value
        return as_expected(value.replace(tzinfo=UTC))


class Now(functions.Now):
    """The database's current time. As an annotation, it is loaded like an InstantField."""

    output_field = InstantField()
