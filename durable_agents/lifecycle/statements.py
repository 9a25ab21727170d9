"""The statements that every step of every run needs, as SQL: building a query with Django's ORM costs more than the
database needs to answer it. The columns of a model and their converters are worked out once for each database.

Everything else in this package stays ordinary ORM. A row that is inserted or updated here sends no ``post_save``.
"""

# ruff: noqa: S608 - the texts are made of the names of tables and columns, the values are parameters

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Generic, TypeAlias, TypeVar
from uuid import UUID

from django.db import connections, models
from django.db.models import Expression

from durable_agents.models import Message, Stream, StreamState, Thread, ToolCall, ToolCallStatus
from durable_agents.times import Now

Row = TypeVar("Row", bound=models.Model)
HeldRow = TypeVar("HeldRow", bound=Stream | ToolCall)
Field: TypeAlias = "models.Field[Any, Any]"
Values: TypeAlias = Sequence[Any]
"""The parameters of a statement, or the columns of a result, of whatever types the driver takes and gives."""
Convert: TypeAlias = Callable[[Any], Any]


def insert(rows: Sequence[models.Model], *, using: str) -> None:
    """Insert rows of one model in one statement."""
    model = type(rows[0])
    # The database computes generated columns, and the keys of rows that have none yet.
    left_out = {model._meta.auto_field} if rows[0].pk is None else set()
    fields = [field for field in model._meta.local_concrete_fields if not field.generated and field not in left_out]
    connection = connections[using]
    values = [[field.get_db_prep_save(field.pre_save(row, add=True), connection) for field in fields] for row in rows]
    if any(hasattr(value, "as_sql") for row in values for value in row):  # a default that the database computes
        model._base_manager.using(using).bulk_create(rows)
        return
    quote = connection.ops.quote_name
    one = f"({', '.join(['%s'] * len(fields))})"
    columns = ", ".join(_column(field, using) for field in fields)
    sql = f"INSERT INTO {quote(model._meta.db_table)} ({columns}) VALUES {', '.join([one] * len(rows))}"
    _execute(sql, [value for row in values for value in row], using=using)
    for row in rows:
        row._state.adding, row._state.db = False, using


def update(rows: Sequence[models.Model], names: Iterable[str], *, fences: Sequence[int] | None, using: str) -> int:
    """Update these fields of rows of one model in one statement, where given only rows whose fence is still the one
    given. Returns the number of rows updated.
    """
    model, connection = type(rows[0]), connections[using]
    by_name = {field.name: field for field in model._meta.concrete_fields}
    fields = [by_name[name] for name in sorted(names)]
    quote, key = connection.ops.quote_name, model._meta.pk
    checked = [key] if fences is None else [key, by_name["fence"]]
    table, all_fields = quote(model._meta.db_table), [*checked, *fields]
    parameters: list[object] = []
    for number, row in enumerate(rows):
        identity = [row.pk] if fences is None else [row.pk, fences[number]]
        parameters += [item.get_db_prep_save(value, connection) for item, value in zip(checked, identity, strict=True)]
        parameters += [field.get_db_prep_save(field.pre_save(row, add=False), connection) for field in fields]
    names_of = [f"c{number}" for number in range(len(all_fields))]
    changes = ", ".join(
        f"{_column(field, using)} = v.{name}" for field, name in zip(fields, names_of[len(checked) :], strict=True)
    )
    same = " AND ".join(
        f"{table}.{_column(field, using)} = v.{name}" for field, name in zip(checked, names_of, strict=False)
    )
    if connection.vendor == "postgresql":  # it has to be told the types of values without a column
        one = f"({', '.join(f'%s::{field.db_type(connection)}' for field in all_fields)})"
        source = f"(VALUES {', '.join([one] * len(rows))}) AS v({', '.join(names_of)})"
    else:
        one = f"({', '.join(['%s'] * len(all_fields))})"
        columns = ", ".join(f"column{number + 1} AS {name}" for number, name in enumerate(names_of))
        source = f"(SELECT {columns} FROM (VALUES {', '.join([one] * len(rows))})) AS v"
    return _execute(f"UPDATE {table} SET {changes} FROM {source} WHERE {same}", parameters, using=using)


def lock_threads(ids: Sequence[UUID], *, using: str) -> list[tuple[Thread, datetime]]:
    """Lock those of these threads that no other transaction has locked, in the order of their ids. Each comes with the
    database's time.
    """
    connection = connections[using]
    select = _select(Thread, using)
    clock = "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW')" if connection.vendor == "sqlite" else "STATEMENT_TIMESTAMP()"
    lock = " FOR NO KEY UPDATE SKIP LOCKED" if connection.vendor == "postgresql" else ""
    condition, parameters = _one_of("id", ids, using=using)
    sql = f"SELECT {select.columns}, {clock} FROM {select.table} WHERE {condition} ORDER BY {select.table}.id{lock}"
    convert = _converters(Now(), using)
    return [(row, convert(now)) for row, (now,) in select.load(_fetch(sql, parameters, using=using))]


@dataclass(frozen=True, kw_only=True)
class Placed(Generic[HeldRow]):
    """A row of a worker, and where it is in its thread."""

    row: HeldRow
    position: int
    """Of its message."""
    number: int
    """Of its attempt."""

    @property
    def is_held(self) -> bool:
        """Whether a worker holds it."""
        state = self.row.state if isinstance(self.row, Stream) else self.row.status
        return state in {StreamState.STREAMING, ToolCallStatus.RUNNING}


def held_streams(ids: Sequence[UUID], *, using: str) -> list[Placed[Stream]]:
    """Return these streams."""
    select, message = _select(Stream, using), _select(Message, using).table
    condition, parameters = _one_of(f"{select.table}.id", ids, using=using)
    join = f"JOIN {message} ON {message}.id = {select.table}.message_id"
    sql = f"SELECT {select.columns}, {message}.position FROM {select.table} {join} WHERE {condition}"
    loaded = select.load(_fetch(sql, parameters, using=using))
    return [Placed(row=row, position=position, number=row.number) for row, (position,) in loaded]


def open_calls(thread_ids: Sequence[UUID], *, using: str) -> list[Placed[ToolCall]]:
    """Return the calls of these threads that have no outcome."""
    select = _select(ToolCall, using)
    message, stream = _select(Message, using).table, _select(Stream, using).table
    condition, parameters = _one_of(f"{select.table}.thread_id", thread_ids, using=using)
    joins = f"JOIN {message} ON {message}.id = {select.table}.message_id "
    joins += f"JOIN {stream} ON {stream}.id = {select.table}.stream_id"
    sql = f"SELECT {select.columns}, {message}.position, {stream}.number FROM {select.table} {joins} "
    sql += f"WHERE {condition} AND {select.table}.finished_at IS NULL ORDER BY {select.table}.rev"
    loaded = select.load(_fetch(sql, parameters, using=using))
    return [Placed(row=row, position=position, number=number) for row, (position, number) in loaded]


@dataclass(frozen=True, kw_only=True)
class _Select(Generic[Row]):
    """The columns of a model, and how a result becomes rows of it."""

    model: type[Row]
    table: str
    columns: str
    names: Sequence[str]
    converters: Sequence[tuple[int, Convert]]
    using: str

    def load(self, results: Iterable[Values]) -> Iterator[tuple[Row, Values]]:
        """Yield each result as a row, and the values of the columns after the model's own."""
        for result in results:
            values = list(result)
            for index, convert in self.converters:
                values[index] = convert(values[index])
            yield self.model.from_db(self.using, self.names, values[: len(self.names)]), values[len(self.names) :]


def _select(model: type[Row], using: str) -> _Select[Row]:
    return _select_of(model, using, connections[using].vendor)


@cache
def _select_of(model: type[Row], using: str, vendor: str) -> _Select[Row]:
    connection = connections[using]
    quote, fields = connection.ops.quote_name, model._meta.concrete_fields
    table = quote(model._meta.db_table)
    converters = [
        (index, _converters(column, using))
        for index, column in enumerate(field.get_col(table) for field in fields)
        if connection.ops.get_db_converters(column) or column.get_db_converters(connection)
    ]
    return _Select(
        model=model,
        table=table,
        columns=", ".join(f"{table}.{_column(field, using)}" for field in fields),
        names=[field.attname for field in fields],
        converters=converters,
        using=using,
    )


def _column(field: Field, using: str) -> str:
    """Return the quoted column of a field that has one."""
    return connections[using].ops.quote_name(str(field.column))


def _converters(expression: Expression, using: str) -> Convert:
    """Return what makes the value of a column, or of an expression, what Django makes of it."""
    connection = connections[using]
    converters = [
        *connection.ops.get_db_converters(expression),
        *expression.get_db_converters(connection),
    ]

    def convert(value: Any) -> Any:
        for converter in converters:
            value = converter(value, expression, connections[using])
        return value

    return convert


def _one_of(column: str, ids: Sequence[UUID], *, using: str) -> tuple[str, Values]:
    connection = connections[using]
    if connection.vendor == "postgresql":
        return f"{column} = ANY(%s)", [list(ids)]
    key = Thread._meta.pk
    return f"{column} IN ({', '.join(['%s'] * len(ids))})", [key.get_db_prep_value(item, connection) for item in ids]


def _fetch(sql: str, parameters: Values, *, using: str) -> list[Values]:
    with connections[using].cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


def _execute(sql: str, parameters: Values, *, using: str) -> int:
    with connections[using].cursor() as cursor:
        cursor.execute(sql, parameters)
        return int(cursor.rowcount)
