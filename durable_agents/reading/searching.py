"""Hides how threads are found by their words: in the title, in what users said, and in the answers that are shown.

PostgreSQL looks for whole words by its full text search, in the syntax of web searches (``"a phrase"``, ``or``,
``-not``), in all languages alike and by the indexes of migration 0004. Other databases look for the text as it stands,
in any case. What a message of the role system says is found by nobody.
"""

from __future__ import annotations

from django.db import connections
from django.db.models import BooleanField, Exists, F, Func, OuterRef, Q, Value

from durable_agents.models import Message, Role, Stream, StreamState, ThreadQuerySet

MAX_SEARCH_CHARS = 200


class _Words(Func):
    """The words of a text, as the indexes have them. PostgreSQL raises an error at more than a megabyte of words, so of
    a longer text the first 50,000 characters count."""

    template = "to_tsvector('simple', left(%(expressions)s, 50000))"


class _Asked(Func):
    """The words of a web search; no input is an error to it."""

    template = "websearch_to_tsquery('simple', %(expressions)s)"


class _Matches(Func):
    template = "%(expressions)s"
    arg_joiner = " @@ "
    output_field = BooleanField()


def threads_saying(threads: ThreadQuerySet, text: str) -> ThreadQuerySet:
    """Those of the threads that say this, which has at most ``MAX_SEARCH_CHARS`` characters, in their title or in one
    of their messages."""
    asked = Message.objects.filter(_says("text", text, threads), thread=OuterRef("pk"), role=Role.USER)
    closed = Stream.objects.filter(state__in=[StreamState.FINISHED, StreamState.ABORTED]).exclude(text="")
    answered = closed.filter(_says("text", text, threads), thread=OuterRef("pk"), message__superseded_at=None)
    said = Exists(asked.filter(superseded_at=None)) | Exists(answered)
    return threads.filter(_says("title", text, threads) | said)


def _says(field: str, text: str, rows: ThreadQuerySet) -> Q:
    if connections[rows.db].vendor == "postgresql":
        return Q(_Matches(_Words(F(field)), _Asked(Value(text))))
    return Q(**{f"{field}__icontains": text})
