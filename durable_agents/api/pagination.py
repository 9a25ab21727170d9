"""Paginate long lists by cursor: ``{next, previous, results}``, where ``next`` and ``previous`` are links or null.

A cursor contains the last row's values of the sort keys. The next page begins right after these values, even if rows
were added or removed in the meantime, and even if many rows changed at the same moment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from django.core import signing
from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import (
    BigIntegerField,
    ExpressionWrapper,
    F,
    Field,
    Model,
    Q,
    QuerySet,
    TextField,
    UUIDField,
    Value,
)
from django.db.models.functions import Cast
from django.db.models.lookups import GreaterThan, GreaterThanOrEqual, LessThan, LessThanOrEqual
from rest_framework.exceptions import ParseError
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

from durable_agents.times import InstantField

Row = TypeVar("Row", bound=Model)
Kind: TypeAlias = "Field[Any, Any]"

_ROWS, _MAX_ROWS = 50, 200
_SALT = "durable_agents.cursor"
_SPELLED = "spelled_"


@dataclass(frozen=True, kw_only=True)
class PageCursor:
    """Where a page begins: after the row with these values or, if ``is_backwards``, before it. That row is not on the
    page. The text of a cursor is signed, so that clients cannot make one up.
    """

    values: Sequence[str]
    is_backwards: bool

    @classmethod
    def of(cls, request: Request, kinds: Collection[Kind]) -> PageCursor | None:
        """Return the request's cursor, with a value for each key; None if it has no cursor. Raises ParseError."""
        signed = request.query_params.get("cursor")
        if signed is None:
            return None
        try:
            is_backwards, *texts = signing.Signer(salt=_SALT).unsign_object(signed)
            # A cursor of another list has a valid signature, but its values may be invalid for these keys.
            for text, kind in zip(texts, kinds, strict=True):
                kind.to_python(text)
        except (signing.BadSignature, ValueError, ValidationError) as error:
            raise ParseError("The cursor is invalid.", code="invalid_cursor") from error
        return cls(values=texts, is_backwards=is_backwards)

    def __str__(self) -> str:
        return signing.Signer(salt=_SALT).sign_object([self.is_backwards, *self.values])


@dataclass(frozen=True, kw_only=True)
class Page(Generic[Row]):
    """The rows of one page in their order, and the links to the next and the previous page."""

    rows: Sequence[Row]
    next: str | None
    previous: str | None

    def envelope(self, results: Sequence[object]) -> dict[str, object]:
        """Return the response body; ``results`` are the rows as JSON."""
        return {"next": self.next, "previous": self.previous, "results": list(results)}


@dataclass(frozen=True, kw_only=True)
class Order:
    """How rows are sorted: by ``keys``, whose combination is unique. If no index covers the keys, ``columns`` name the
    fields to sort by instead. They give the same order, with rows without a value last.
    """

    keys: Mapping[str, Kind]
    columns: Sequence[str] = ()
    is_descending: bool = False

    def page(self, rows: QuerySet[Row], request: Request) -> Page[Row]:
        """Return the page for ``?cursor=`` and ``?limit=``. Raises ParseError for a cursor that is not one of ours."""
        cursor = PageCursor.of(request, self.keys.values())
        # An invalid limit is ignored. So is a limit of ten or more digits, because ``int`` takes time quadratic in the
        # number of digits.
        text = request.query_params.get("limit", "")
        given = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        limit = min(given, _MAX_ROWS) or _ROWS
        is_backwards = cursor is not None and cursor.is_backwards
        spelled = {_SPELLED + name: _spelling(rows, name, kind) for name, kind in self.keys.items()}
        # Fetch one row more than shown, to see whether there is another page without counting the rows of a long list.
        rows_and_next = list(self._beyond(rows, cursor).annotate(**spelled)[: limit + 1])
        has_more, shown = len(rows_and_next) > limit, rows_and_next[:limit]
        if is_backwards:
            shown.reverse()
        has_next = has_more or is_backwards
        has_previous = has_more if is_backwards else cursor is not None
        return Page(
            rows=shown,
            next=self._link(request, shown[-1:], is_backwards=False) if has_next else None,
            previous=self._link(request, shown[:1], is_backwards=True) if has_previous else None,
        )

    def _beyond(self, rows: QuerySet[Row], cursor: PageCursor | None) -> QuerySet[Row]:
        """Return the rows beyond the cursor, the nearest first."""
        is_descending = self.is_descending != (cursor is not None and cursor.is_backwards)
        # The place of nulls is set for every column, because by default they are first on SQLite and last on
        # PostgreSQL.
        columns = [
            F(name).desc(nulls_first=True) if is_descending else F(name).asc(nulls_last=True) for name in self.columns
        ]
        keys = [F(name) for name in self.keys]
        ordered = rows.order_by(*(columns or [key.desc() if is_descending else key.asc() for key in keys]))
        if cursor is None:
            return ordered
        spelled = zip(self.keys.items(), cursor.values, strict=True)
        values = [
            Value(value, output_field=_spelling(rows, name, kind).output_field) for (name, kind), value in spelled
        ]
        return ordered.filter(_is_past(keys, values, is_descending=is_descending))

    def _link(self, request: Request, edge: Sequence[Row], *, is_backwards: bool) -> str | None:
        """Return the URL of the page beyond the row in ``edge``, or None if ``edge`` is empty."""
        if not edge:
            return None
        values = [str(getattr(edge[0], _SPELLED + name)) for name in self.keys]
        cursor = PageCursor(values=values, is_backwards=is_backwards)
        return replace_query_param(request.build_absolute_uri(), "cursor", str(cursor))


def _spelling(rows: QuerySet[Row], name: str, kind: Kind) -> Cast | ExpressionWrapper[F]:
    """Return the expression for a key's value as a cursor contains it."""
    # SQLite stores and sorts times as text, and its own clock writes fewer digits than Django. Therefore the cursor
    # contains the stored text.
    if isinstance(kind, InstantField) and connections[rows.db].vendor == "sqlite":
        return Cast(name, TextField())
    return ExpressionWrapper(F(name), output_field=kind)


def _is_past(keys: Sequence[F], values: Sequence[Value], *, is_descending: bool) -> Q:
    """Return the condition that a row comes after these values in the sort order."""
    past, level_or_past = (LessThan, LessThanOrEqual) if is_descending else (GreaterThan, GreaterThanOrEqual)
    is_past = Q(past(keys[0], values[0]))
    if len(keys) == 1:
        return is_past
    rest = _is_past(keys[1:], values[1:], is_descending=is_descending)
    # The first condition follows from the others, but planners need it to start at the right place in the index.
    return Q(level_or_past(keys[0], values[0])) & (is_past | rest)


LAST_CHANGED_FIRST = Order(keys={"updated_at": InstantField(), "id": UUIDField()}, is_descending=True)
AS_MADE = Order(keys={"created_at": InstantField(), "id": UUIDField()})
BY_NUMBER = Order(keys={"number": BigIntegerField()})
BY_TURN = Order(keys={"turn": BigIntegerField()}, columns=["position", "rev"])
