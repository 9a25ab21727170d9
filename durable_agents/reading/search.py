"""Search threads by text: in the title, in the messages of users, and in the answers that are shown.

PostgreSQL's full-text search finds whole words in any language and uses the indexes of migration 0004. It accepts the
syntax of web searches: ``"a phrase"``, ``or`` and ``-not``. Other databases search for the literal text and ignore
case. Messages of the role system are not searched.
"""

from __future__ import annotations

from django.db import connections
from django.db.models import BooleanField, Exists, F, Func, OuterRef, Q, Value

from durable_agents.models import Message, Role, Stream, StreamState, ThreadQuerySet

MAX_SEARCH_CHARS = 200


class _Words(Func):
    """The indexed words of a text. Only the beginning of a long text is indexed."""

    # PostgreSQL raises an error for more than a megabyte of words. The configuration "simple" treats all languages
    # alike. Migration 0004 creates an index on the same expression. Change both together: PostgreSQL uses the index
    # only if the two expressions are identical.
    template = "to_tsvector('simple', left(%(expressions)s, 50000))"


class _Query(Func):
    """A query in the syntax of web searches. PostgreSQL accepts every text as such a query, without an error."""

    template = "websearch_to_tsquery('simple', %(expressions)s)"


class _Matches(Func):
    template = "%(expressions)s"
    arg_joiner = " @@ "
    output_field = BooleanField()


def threads_with_text(threads: ThreadQuerySet, text: str) -> ThreadQuerySet:
    """Filter ``threads`` by a text in the title or in the messages. The text has at most ``MAX_SEARCH_CHARS``
    characters.
    """
    in_text = _contains("text", text, threads)
    questions = Message.objects.filter(in_text, thread=OuterRef("pk"), role=Role.USER, superseded_at=None)
    closed = Stream.objects.filter(state__in=[StreamState.FINISHED, StreamState.ABORTED]).exclude(text="")
    answers = closed.filter(in_text, thread=OuterRef("pk"), message__superseded_at=None)
    return threads.filter(_contains("title", text, threads) | Exists(questions) | Exists(answers))


def _contains(field: str, text: str, rows: ThreadQuerySet) -> Q:
    if connections[rows.db].vendor == "postgresql":
        return Q(_Matches(_Words(F(field)), _Query(Value(text))))
    return Q(**{f"{field}__icontains": text})
