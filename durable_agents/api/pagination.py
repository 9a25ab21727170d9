"""Paginate long lists by cursor. The response is ``{next, previous, results}``; ``next`` and ``previous`` are links or
null.

The cursor in ``next`` contains the sort key of the last row on the page. The next page begins right after this key,
even if rows were added or removed in the meantime. The sort key is unique, so rows with equal times are neither skipped
nor repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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

from durable_agents.utc_times import InstantField

Row = TypeVar("Row", bound=Model)
Kind: TypeAlias = "Field[Any, Any]"

_ROWS, _MAX_ROWS = 50, 200
_SALT = "durable_agents.cursor"
_SPELLED = "spelled_"


@dataclass(frozen=True, kw_only=True)
class PageCursor:
    """The place of a page in a sorted list. The page contains the rows after the sort key ``values`` or, if
    ``is_backwards`` is true, the rows before this sort key. Cursors are signed, so clients cannot forge them.
    """

    values: Sequence[str]
    is_backwards: bool

    @classmethod
    def of(cls, request: Request, kinds: Collection[Kind]) -> PageCursor | None:
        """Return the cursor from the parameter ``?cursor=``; None if the parameter is missing. Raises ParseError if the
        cursor is forged or does not fit the sort keys.
        """
        signed = request.query_params.get("cursor")
        if signed is None:
            return None
        try:
            is_backwards, *texts = signing.Signer(salt=_SALT).unsign_object(signed)
            # A cursor from another list has a valid signature, but its values may be invalid for these sort keys.
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
    """A sort order of a list.

    - ``keys``: the fields whose values a cursor contains. The values are unique together.
    - ``columns``: other fields that give the same order and have an index. If they are given, the database sorts by
      them instead of ``keys``. In ascending order, their nulls come last.
    """

    keys: Mapping[str, Kind]
    columns: Sequence[str] = ()
    is_descending: bool = False

    def page(
        self, rows: QuerySet[Row], request: Request, *, fitting: Callable[[QuerySet[Row]], int] | None = None
    ) -> Page[Row]:
        """Return the page that ``?cursor=`` and ``?limit=`` select. Raises ParseError if the cursor is invalid.

        ``fitting`` can make the page shorter. It gets the rows of the page, and returns how many of them to keep.
        """
        cursor = PageCursor.of(request, self.keys.values())
        # Ignore an invalid limit, and a limit of ten or more digits. ``int`` would be slow for very many digits.
        text = request.query_params.get("limit", "")
        given = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        limit = min(given, _MAX_ROWS) or _ROWS
        is_backwards = cursor is not None and cursor.is_backwards
        spelled = {_SPELLED + name: _spelling(rows, name, kind) for name, kind in self.keys.items()}
        # Fetch one extra row to see whether there is another page. Counting the rows of a long list would be slow.
        ordered = self._beyond(rows, cursor)
        rows_and_next = list(ordered.annotate(**spelled)[: limit + 1])
        shown = rows_and_next[: fitting(ordered[:limit]) if fitting else limit]
        has_more = len(rows_and_next) > len(shown)
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
        """Return the rows after the cursor or, if ``cursor.is_backwards`` is true, the rows before the cursor. The row
        closest to the cursor comes first. Without a cursor, return all rows.
        """
        is_descending = self.is_descending != (cursor is not None and cursor.is_backwards)
        # Say where nulls go, because in ascending order SQLite puts them first and PostgreSQL puts them last.
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
        """Return a link to the next page or, if ``is_backwards``, to the previous page.

        For a link to the next page, ``edge`` contains the last row of this page. For a link to the previous page, it
        contains the first row. If ``edge`` is empty, return None.
        """
        if not edge:
            return None
        values = [str(getattr(edge[0], _SPELLED + name)) for name in self.keys]
        cursor = PageCursor(values=values, is_backwards=is_backwards)
        return replace_query_param(request.build_absolute_uri(), "cursor", str(cursor))


def _spelling(rows: QuerySet[Row], name: str, kind: Kind) -> Cast | ExpressionWrapper[F]:
    """Return a database expression for the field ``name``, as a cursor contains its value."""
    # SQLite stores times as text and sorts them as text. The same time can have different texts, because SQLite's clock
    # writes fewer digits than Django. Therefore a cursor must contain exactly the stored text.
    if isinstance(kind, InstantField) and connections[rows.db].vendor == "sqlite":
        return Cast(name, TextField())
    return ExpressionWrapper(F(name), output_field=kind)


def _is_past(keys: Sequence[F], values: Sequence[Value], *, is_descending: bool) -> Q:
    """Return a filter for the rows that come after these values in the sort order."""
    past, level_or_past = (LessThan, LessThanOrEqual) if is_descending else (GreaterThan, GreaterThanOrEqual)
    is_past = Q(past(keys[0], values[0]))
    if len(keys) == 1:
        return is_past
    rest = _is_past(keys[1:], values[1:], is_descending=is_descending)
    # The first condition does not change the result, but lets the query planner start at the right place in the index.
    return Q(level_or_past(keys[0], values[0])) & (is_past | rest)


LAST_CHANGED_FIRST = Order(keys={"updated_at": InstantField(), "id": UUIDField()}, is_descending=True)
AS_MADE = Order(keys={"created_at": InstantField(), "id": UUIDField()})
BY_NUMBER = Order(keys={"number": BigIntegerField()})
BY_TURN = Order(keys={"turn": BigIntegerField()}, columns=["position", "rev"])
