"""Hand-written SQL for the statements that every step runs. Django's ORM takes longer to build these queries than the
database takes to run them.

The columns and converters of a model are computed once per database. Rows written here send no ``post_save`` signal.
All other code in this package uses the ORM.
"""

# ruff: noqa: S608 - the SQL contains only the names of tables and columns; all values are parameters

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import Any, Generic, TypeAlias, TypeVar
from uuid import UUID

from django.db import connections, models
from django.db.models import Expression

from durable_agents.models import Message, Role, Stream, StreamState, Thread, ToolCall, ToolCallStatus
from durable_agents.utc_times import Now

Row = TypeVar("Row", bound=models.Model)
HeldRow = TypeVar("HeldRow", bound=Stream | ToolCall)
Field: TypeAlias = "models.Field[Any, Any]"
Values: TypeAlias = Sequence[Any]
"""The parameters of a statement, or the column values of a result, in the types that the database driver uses."""
Convert: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """An SQL statement that writes rows, with its parameters."""

    sql: str
    parameters: Values


def execute_all(statements: Sequence[Statement], *, using: str) -> list[int]:
    """Execute these statements in order, in one round trip if possible. Return the number of rows that each statement
    has written.
    """
    connection = connections[using]
    # Only psycopg 3 can send several statements at once, and only without server-side binding.
    takes_several = (
        connection.vendor == "postgresql"
        and not connection.settings_dict["OPTIONS"].get("server_side_binding")
        and import_module("django.db.backends.postgresql.psycopg_any").is_psycopg3
    )
    counts: list[int] = []
    with connection.cursor() as cursor:
        if len(statements) <= 1 or not takes_several:
            for item in statements:
                cursor.execute(item.sql, item.parameters)
                counts.append(int(cursor.rowcount))
            return counts
        parameters = [value for item in statements for value in item.parameters]
        cursor.execute("; ".join(item.sql for item in statements), parameters)
        counts.append(int(cursor.rowcount))
        while cursor.nextset():
            counts.append(int(cursor.rowcount))
    return counts


def insertion(rows: Sequence[models.Model], *, using: str) -> Statement | None:
    """Return the INSERT statement for rows of one model. Return None if a row has a default that the database computes;
    use ``bulk_create`` for such rows.
    """
    model, connection = type(rows[0]), connections[using]
    texts = _insertion(model, using, has_key=rows[0].pk is not None)
    values = [
        [field.get_db_prep_save(field.pre_save(row, add=True), connection) for field in texts.fields] for row in rows
    ]
    if any(hasattr(value, "as_sql") for row in values for value in row):
        return None
    for row in rows:
        row._state.adding, row._state.db = False, using
    sql = texts.head + ", ".join([texts.one] * len(rows))
    return Statement(sql=sql, parameters=[value for row in values for value in row])


@dataclass(frozen=True, kw_only=True)
class _Insertion:
    """The columns and SQL fragments of an INSERT statement."""

    fields: Sequence[Field]
    head: str
    one: str


@cache
def _insertion(model: type[models.Model], using: str, *, has_key: bool) -> _Insertion:
    # Leave out the columns that the database fills: generated columns and missing primary keys.
    left_out = set() if has_key else {model._meta.auto_field}
    fields = [field for field in model._meta.local_concrete_fields if not field.generated and field not in left_out]
    table = connections[using].ops.quote_name(model._meta.db_table)
    return _Insertion(
        fields=fields,
        head=f"INSERT INTO {table} ({', '.join(_column(field, using) for field in fields)}) VALUES ",
        one=f"({', '.join(['%s'] * len(fields))})",
    )


def change(
    rows: Sequence[models.Model], names: Iterable[str], *, fences: Sequence[int] | None, using: str
) -> Statement:
    """Return an UPDATE statement that writes the fields ``names`` of these rows. All rows must be of one model.

    ``fences`` has the expected fence (fencing token) of each row, or is None. A row with another fence in the database
    is not updated.
    """
    connection = connections[using]
    is_single, has_fences = len(rows) == 1, fences is not None
    texts = _change(
        type(rows[0]), tuple(sorted(names)), using, connection.vendor, has_fences=has_fences, is_single=is_single
    )
    parameters: list[object] = []
    for number, row in enumerate(rows):
        identity = [row.pk] if fences is None else [row.pk, fences[number]]
        checks = [
            field.get_db_prep_save(value, connection) for field, value in zip(texts.checked, identity, strict=True)
        ]
        values = [field.get_db_prep_save(field.pre_save(row, add=False), connection) for field in texts.fields]
        parameters += values + checks
    return Statement(sql=texts.head + ", ".join([texts.one] * len(rows)) + texts.tail, parameters=parameters)


@dataclass(frozen=True, kw_only=True)
class _Change:
    """The columns and SQL fragments of an UPDATE statement."""

    fields: Sequence[Field]
    checked: Sequence[Field]
    head: str
    one: str
    tail: str


@cache
def _change(
    model: type[models.Model], names: tuple[str, ...], using: str, vendor: str, *, has_fences: bool, is_single: bool
) -> _Change:
    connection = connections[using]
    by_name = {field.name: field for field in model._meta.concrete_fields}
    fields, table = [by_name[name] for name in names], connection.ops.quote_name(model._meta.db_table)
    checked = [model._meta.pk, by_name["fence"]] if has_fences else [model._meta.pk]
    if is_single:
        assignments = ", ".join(f"{_column(field, using)} = %s" for field in fields)
        conditions = " AND ".join(f"{_column(field, using)} = %s" for field in checked)
        head = f"UPDATE {table} SET {assignments} WHERE {conditions}"
        return _Change(fields=fields, checked=checked, head=head, one="", tail="")
    all_fields = [*fields, *checked]
    aliases = [f"c{number}" for number in range(len(all_fields))]
    pairs = list(zip(all_fields, aliases, strict=True))
    assignments = ", ".join(f"{_column(field, using)} = v.{alias}" for field, alias in pairs[: len(fields)])
    conditions = " AND ".join(f"{table}.{_column(field, using)} = v.{alias}" for field, alias in pairs[len(fields) :])
    head = f"UPDATE {table} SET {assignments} FROM "
    if vendor == "postgresql":  # PostgreSQL does not infer the types in a VALUES list
        one = f"({', '.join(f'%s::{field.db_type(connection)}' for field in all_fields)})"
        return _Change(
            fields=fields,
            checked=checked,
            head=f"{head}(VALUES ",
            one=one,
            tail=f") AS v({', '.join(aliases)}) WHERE {conditions}",
        )
    columns = ", ".join(f"column{number + 1} AS {alias}" for number, alias in enumerate(aliases))
    return _Change(
        fields=fields,
        checked=checked,
        head=f"{head}(SELECT {columns} FROM (VALUES ",
        one=f"({', '.join(['%s'] * len(all_fields))})",
        tail=f")) AS v WHERE {conditions}",
    )


def lock_threads(ids: Sequence[UUID], *, using: str) -> list[tuple[Thread, datetime]]:
    """Lock these threads in the order of their ids, and return each with the database's time. Skip threads that another
    transaction has locked.
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
    """A model call or a tool call, with its place in the thread."""

    row: HeldRow
    position: int
    """The position of the row's assistant message in the thread."""
    number: int
    """The number of the model call in the thread. For a tool call, this is the number of the model call that made it.
    """
    sender_id: object = None
    """For a model call: the primary key of the user whose message the model answers, or None. For a tool call: None."""

    @property
    def is_held(self) -> bool:
        state = self.row.state if isinstance(self.row, Stream) else self.row.status
        return state in {StreamState.STREAMING, ToolCallStatus.RUNNING}


def held_streams(ids: Sequence[UUID], *, using: str) -> list[Placed[Stream]]:
    """Return the model calls with these ids. No rows are locked.

    A worker may have lost some of these model calls. The caller finds out by comparing the fences (fencing tokens).
    """
    select, message = _select(Stream, using), _select(Message, using).table
    condition, parameters = _one_of(f"{select.table}.id", ids, using=using)
    join = f"JOIN {message} ON {message}.id = {select.table}.message_id"
    asks = f"asks.thread_id = {select.table}.thread_id AND asks.role = '{Role.USER.value}'"
    sender = f"SELECT asks.sender_id FROM {message} asks WHERE {asks} AND asks.position < {message}.position"
    columns = f"{select.columns}, {message}.position, ({sender} ORDER BY asks.position DESC LIMIT 1)"
    sql = f"SELECT {columns} FROM {select.table} {join} WHERE {condition}"
    loaded = select.load(_fetch(sql, parameters, using=using))
    convert = _converters(Message._meta.get_field("sender").get_col(message), using)
    return [
        Placed(row=row, position=position, number=row.number, sender_id=convert(sender_id))
        for row, (position, sender_id) in loaded
    ]


def open_calls(thread_ids: Sequence[UUID], *, using: str) -> list[Placed[ToolCall]]:
    """Return the tool calls of these threads that have no outcome yet."""
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
    """The columns of a model, and the converters that turn query results into model instances."""

    model: type[Row]
    table: str
    columns: str
    names: Sequence[str]
    converters: Sequence[tuple[int, Convert]]
    using: str

    def load(self, results: Iterable[Values]) -> Iterator[tuple[Row, Values]]:
        """Yield a pair for each row of the query's result: a model instance, and the values of the additional columns.

        The additional columns come after the columns of the model.
        """
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
    return connections[using].ops.quote_name(str(field.column))


def _converters(expression: Expression, using: str) -> Convert:
    """Return a function that converts a database value of this expression as Django does."""
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
