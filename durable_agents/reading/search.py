"""Search threads by text: in the title, in the messages of users, and in the answers that are shown.

PostgreSQL searches whole words by its full text search, in the syntax of web searches (``"a phrase"``, ``or``,
``-not``), in all languages alike and by the indexes of migration 0004. Other databases search the literal text,
ignoring case. Messages of the role system are not searched.
"""

from __future__ import annotations

from django.db import connections
from django.db.models import BooleanField, Exists, F, Func, OuterRef, Q, Value

from durable_agents.models import Message, Role, Stream, StreamState, ThreadQuerySet

MAX_SEARCH_CHARS = 200


class _Words(Func):
    """The words of a text, as they are indexed: of a long one, only its beginning."""

    # PostgreSQL raises an error at more than a megabyte of words. "simple" knows no language, so all are alike. The
    # index of migration 0004 is used only for the very same expression.
    template = "to_tsvector('simple', left(%(expressions)s, 50000))"


class _Query(Func):
    """The words of a web search; PostgreSQL accepts any input for it."""

    template = "websearch_to_tsquery('simple', %(expressions)s)"


class _Matches(Func):
    template = "%(expressions)s"
    arg_joiner = " @@ "
    output_field = BooleanField()


def threads_with_text(threads: ThreadQuerySet, text: str) -> ThreadQuerySet:
    """Return those of the threads with this text, of at most ``MAX_SEARCH_CHARS`` characters, in their title or in one
    of their messages.
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
