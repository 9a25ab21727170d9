"""Identify who causes a state change: a user, a visitor without an account, or the project's own code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

User: TypeAlias = Any
"""An instance of the project's user model, or Django's anonymous user."""


class Person(TypedDict):
    """A user, as others see them."""

    id: str
    name: str


ShowPerson: TypeAlias = Callable[[User], Person | None]
"""A function that returns what the caller may see of a user. None means that the caller may see nothing of the user."""


def person_of(user: User) -> Person:
    """Return the user's id and full name. If the full name is empty, use the username instead."""
    # Django requires get_username of every user model, but not get_full_name.
    name = user.get_full_name() if hasattr(user, "get_full_name") else ""
    return {"id": str(user.pk), "name": name or user.get_username()}


def username_of(user: User, shown: Person) -> str:
    """Return the name to display for a user.

    ``shown`` is the policy's description of the user. If it is the default (see ``person_of``), return the username.
    Otherwise, return the name from ``shown``.
    """
    return user.get_username() if shown == person_of(user) else shown["name"]


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who causes a state change: a signed-in user, an anonymous visitor, or the project's own code."""

    user: User | None = None
    scope: str | None = None
    """The scope that the policy gives to the visitor. For a signed-in user, it is set only if the user acts on a thread
    without an owner.
    """
    via: str = "python"
    """The interface: python, rest, chat, websocket or admin. Or ``cascade``: a row was deleted together with the row
    that it belonged to.
    """
    is_person: bool = True
    """False for the project's own code."""

    @classmethod
    def of(cls, by: Actor | User | None) -> Actor:
        """Return the actor for a ``by`` argument. None means the project's own code."""
        if isinstance(by, Actor):
            return by
        # Django's anonymous user has no primary key.
        user = by if getattr(by, "pk", None) is not None else None
        return cls(user=user, is_person=by is not None)

    @property
    def user_id(self) -> Any:
        """The user's primary key; None for a visitor and for the project's own code."""
        return None if self.user is None else self.user.pk

    @property
    def digest(self) -> str:
        """A hash of 64 characters that identifies the user or visitor. It is empty for the project's own code."""
        if not self.is_person:
            return ""
        return scope_digest(self.scope) if self.user is None else user_digest(self.user_id)


def user_digest(user_id: object) -> str:
    """Return the digest (see ``Actor.digest``) of the user with this primary key."""
    return _sha256(f"user {user_id}")


def scope_digest(scope: str | None) -> str:
    """Return the digest (see ``Actor.digest``) of the anonymous visitor with this scope."""
    return _sha256(f"scope {scope}")


def _sha256(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()
