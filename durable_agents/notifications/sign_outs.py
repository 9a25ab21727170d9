"""Tell web processes that somebody has signed out, or that an account has changed.

Each session and each user has a topic: a UUID that is made from the session key or the user's id. A topic is used like
the id of a chat thread. To announce a change, this module sends the usual message about a changed chat thread, with the
topic instead of the thread's id. Web processes follow the topics of their open connections (``live.sign_outs``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from uuid import UUID, uuid5

from django.contrib.auth.signals import user_logged_out
from django.db import transaction
from django.db.models import Model
from django.db.models.signals import post_delete, post_save

from durable_agents.conf import AUTH_USER_MODEL
from durable_agents.notifications.clients import layer_crosses_processes, publish

Listener = Callable[[UUID], None]

_NAMESPACE = UUID("6f0a3f55-3f0c-4a53-8d0e-6f1c1c0f6d57")
_SIGN_IN_FIELDS = frozenset({"password", "is_active"})
_listeners: dict[UUID, set[Listener]] = {}


def session_topic(session_key: str) -> UUID:
    """Return the topic of a session."""
    return uuid5(_NAMESPACE, f"session {session_key}")


def user_topic(user_id: object) -> UUID:
    """Return the topic of a user."""
    return uuid5(_NAMESPACE, f"user {user_id}")


def listen_here(topic: UUID, listener: Listener) -> None:
    """Call ``listener`` when this process announces a change of the topic. The call can come from any OS thread.

    Use this function only if the channel layer does not reach other processes. If it does, web processes get the
    announcements over the channel layer, and ``listener`` is not called.
    """
    _listeners.setdefault(topic, set()).add(listener)


def stop_listening(topic: UUID, listener: Listener) -> None:
    """Undo ``listen_here``."""
    listeners = _listeners.get(topic, set())
    listeners.discard(listener)
    if not listeners:
        _listeners.pop(topic, None)


def connect_signals() -> None:
    """Announce sign-outs, and changes of accounts, from now on."""
    user_logged_out.connect(on_logged_out, dispatch_uid="durable_agents")
    post_save.connect(on_user_saved, sender=AUTH_USER_MODEL, dispatch_uid="durable_agents")
    post_delete.connect(on_user_deleted, sender=AUTH_USER_MODEL, dispatch_uid="durable_agents")


def _announce(topic: UUID) -> None:
    if layer_crosses_processes():
        publish(topic, {"type": "thread.changed", "thread": str(topic)})
        return
    for listener in tuple(_listeners.get(topic, ())):
        listener(topic)


def on_logged_out(*, request: object, **_: object) -> None:
    """Announce that the session of this request ends."""
    # Django deletes the session only after this signal. The session may still exist when the announcement arrives, so
    # the receivers must not check whether the session exists.
    session_key = getattr(getattr(request, "session", None), "session_key", None)
    if session_key:
        _announce(session_topic(session_key))


def on_user_saved(
    *, instance: Model, created: bool, update_fields: Collection[str] | None, using: str, **_: object
) -> None:
    """Announce that a user might be inactive now, or might have another password."""
    # Ignore changes of other fields, such as ``last_login``, which each sign-in saves.
    if created or (update_fields is not None and _SIGN_IN_FIELDS.isdisjoint(update_fields)):
        return
    transaction.on_commit(partial(_announce, user_topic(instance.pk)), using=using, robust=True)


def on_user_deleted(*, instance: Model, using: str, **_: object) -> None:
    """Announce that a user is gone."""
    transaction.on_commit(partial(_announce, user_topic(instance.pk)), using=using, robust=True)
