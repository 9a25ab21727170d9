"""Hides how long lists are cut into pages: ``{next, previous, results}``, each a link to more or null.

A cursor names the last row that was seen by the values it is sorted by, so a page begins right after it, whatever
came or went meanwhile and however many rows changed at the same moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.core import signing
from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import (
    BigIntegerField,
    DateTimeField,
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
from django.db.models.expressions import OrderBy
from django.db.models.functions import Cast
from django.db.models.lookups import GreaterThan, GreaterThanOrEqual, LessThan, LessThanOrEqual
from rest_framework.exceptions import ParseError
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

Row = TypeVar("Row", bound=Model)

_ROWS, _MAX_ROWS = 50, 200
_SALT = "durable_agents.cursor"
_SPELLED = "spelled_"


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """The row where a page begins, itself left out, and whether the page lies before it. It travels signed, so that
    nothing but what was given out comes back."""

    values: Sequence[str]
    is_backwards: bool

    def __str__(self) -> str:
        return signing.dumps([self.is_backwards, *self.values], salt=_SALT)


@dataclass(frozen=True, kw_only=True)
class Page(Generic[Row]):
    """Some rows in their order, and the links to those after and before them."""

    rows: Sequence[Row]
    next: str | None
    previous: str | None

    def envelope(self, results: Sequence[Any]) -> dict[str, Any]:
        """The answer, with what the rows look like."""
        return {"next": self.next, "previous": self.previous, "results": list(results)}


@dataclass(frozen=True, kw_only=True)
class Order:
    """How rows are sorted: by these attributes, which together no two rows share. ``columns`` give the same order,
    rows without a value last, where the keys are not what an index has."""

    keys: Mapping[str, Field[Any, Any]]
    columns: Sequence[str] = ()
    is_descending: bool = False

    def page(self, rows: QuerySet[Row], request: Request) -> Page[Row]:
        """The page that ``?cursor=`` and ``?limit=`` ask for. Raises ParseError for a cursor that is none of ours."""
        cursor, limit = self._cursor(request), _limit(request)
        is_backwards = cursor is not None and cursor.is_backwards
        spelled = {_SPELLED + name: _spelling(rows, name, kind) for name, kind in self.keys.items()}
        found = list(self._beyond(rows, cursor).annotate(**spelled)[: limit + 1])
        has_more, shown = len(found) > limit, found[:limit]
        if is_backwards:
            shown.reverse()
        has_next = has_more or is_backwards
        has_previous = has_more if is_backwards else cursor is not None
        return Page(
            rows=shown,
            next=self._link(request, shown[-1:], is_backwards=False) if has_next else None,
            previous=self._link(request, shown[:1], is_backwards=True) if has_previous else None,
        )

    def _beyond(self, rows: QuerySet[Row], cursor: Cursor | None) -> QuerySet[Row]:
        """The rows on the far side of the cursor, the nearest first."""
        is_descending = self.is_descending != (cursor is not None and cursor.is_backwards)
        keys = [F(name) for name in self.keys]
        ordered = rows.order_by(*self._sorting(is_descending=is_descending))
        if cursor is None:
            return ordered
        spelled = zip(self.keys.items(), cursor.values, strict=True)
        values = [
            Value(value, output_field=_spelling(rows, name, kind).output_field) for (name, kind), value in spelled
        ]
        return ordered.filter(_is_past(keys, values, is_descending=is_descending))

    def _sorting(self, *, is_descending: bool) -> Iterator[OrderBy]:
        for name in self.columns:
            yield F(name).desc(nulls_first=True) if is_descending else F(name).asc(nulls_last=True)
        for name in () if self.columns else self.keys:
            yield F(name).desc() if is_descending else F(name).asc()

    def _cursor(self, request: Request) -> Cursor | None:
        given = request.query_params.get("cursor")
        if given is None:
            return None
        try:
            is_backwards, *texts = signing.loads(given, salt=_SALT)
            for text, kind in zip(texts, self.keys.values(), strict=True):
                kind.to_python(text)
        except (signing.BadSignature, ValueError, ValidationError) as error:
            raise ParseError("The cursor is invalid.", code="invalid_cursor") from error
        return Cursor(values=texts, is_backwards=is_backwards)

    def _link(self, request: Request, edge: Sequence[Row], *, is_backwards: bool) -> str | None:
        """The address of the page beyond the row at the edge of this one; none where this one is empty."""
        if not edge:
            return None
        values = [str(getattr(edge[0], _SPELLED + name)) for name in self.keys]
        cursor = Cursor(values=values, is_backwards=is_backwards)
        return replace_query_param(request.build_absolute_uri(), "cursor", str(cursor))


def _spelling(rows: QuerySet[Row], name: str, kind: Field[Any, Any]) -> Cast | ExpressionWrapper[Any]:
    """What a cursor keeps of a key. SQLite stores moments as text, those of its own clock with fewer digits than
    Django's: there it is that text, by which the column is sorted and its index is read."""
    if isinstance(kind, DateTimeField) and connections[rows.db].vendor == "sqlite":
        return Cast(name, TextField())
    return ExpressionWrapper(F(name), output_field=kind)


def _is_past(keys: Sequence[Any], values: Sequence[Any], *, is_descending: bool) -> Q:
    """Whether a row comes after these values. That its first key is not before is said apart, for the index."""
    past, level_or_past = (LessThan, LessThanOrEqual) if is_descending else (GreaterThan, GreaterThanOrEqual)
    is_past = Q(past(keys[0], values[0]))
    if len(keys) == 1:
        return is_past
    rest = _is_past(keys[1:], values[1:], is_descending=is_descending)
    return Q(level_or_past(keys[0], values[0])) & (is_past | rest)


def _limit(request: Request) -> int:
    """The rows of a page; what is no number of rows counts as not given."""
    given = request.query_params.get("limit", "")
    asked = int(given) if given.isascii() and given.isdigit() and len(given) < 10 else 0
    return min(asked, _MAX_ROWS) or _ROWS


LAST_CHANGED_FIRST = Order(keys={"updated_at": DateTimeField(), "id": UUIDField()}, is_descending=True)
AS_MADE = Order(keys={"created_at": DateTimeField(), "id": UUIDField()})
BY_NUMBER = Order(keys={"number": BigIntegerField()})
BY_TURN = Order(keys={"turn": BigIntegerField()}, columns=["position", "rev"])
