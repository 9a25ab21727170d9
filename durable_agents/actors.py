"""Identify who causes a state change: a user, a visitor without an account, or the project's own code."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, TypeAlias

User: TypeAlias = Any
"""An instance of the project's user model. A caller may also be Django's anonymous user."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who causes a state change: a person who uses one of the interfaces, or the project's own code."""

    user: User | None = None
    scope: str | None = None
    """The scope of a visitor, or of a user who acts on a thread without an owner; otherwise None."""
    via: str = "python"
    """The interface: python, rest, chat, websocket or admin. ``cascade`` means that a row was deleted because it
    belonged to another deleted row.
    """
    is_person: bool = True
    """False for the project's own code."""

    @classmethod
    def of(cls, by: Actor | User | None) -> Actor:
        """Return the actor for a ``by`` argument, which is an actor, a user, or None for the project itself."""
        if isinstance(by, Actor):
            return by
        # Django's anonymous user has no primary key.
        user = by if getattr(by, "pk", None) is not None else None
        return cls(user=user, is_person=by is not None)

    @property
    def user_id(self) -> Any:
        """The primary key of the user, or None."""
        return None if self.user is None else self.user.pk

    @property
    def digest(self) -> str:
        """A hash of 64 characters that identifies the person on every interface; empty for the project's own code."""
        if not self.is_person:
            return ""
        return scope_digest(self.scope) if self.user is None else user_digest(self.user_id)


def user_digest(user_id: object) -> str:
    """Return the digest of the user with this primary key."""
    return _sha256(f"user {user_id}")


def scope_digest(scope: str | None) -> str:
    """Return the digest of an anonymous caller, who is identified by this scope."""
    return _sha256(f"scope {scope}")


def _sha256(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()
