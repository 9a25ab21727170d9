"""Admin for the audit log: who did what to which thread."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from durable_agents.actors import Actor
from durable_agents.admin.formatting import readable
from durable_agents.admin.read_only_admins import ReadOnlyAdmin
from durable_agents.models import AuditEntry

MAX_ENTRIES = 50


def staff(request: HttpRequest) -> Actor:
    """Return the actor of a request to the admin."""
    return Actor(user=request.user, via="admin")


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin[AuditEntry]):
    """Entries of the audit log. A search by a thread's id also finds the entries of a deleted thread."""

    list_display = ("at", "action", "who", "via", "thread_id", "subject")
    list_filter = ("action", "via", "at")
    list_select_related = ("user",)
    search_fields = ("subject", "scope")
    ids = ("thread_id",)
    heavy = ()
    shown = readable(AuditEntry, "at", "thread_id", "action", "user", "scope", "via", "subject", "arguments_hash")

    @admin.display(description=_("who"), ordering="user")
    def who(self, row: AuditEntry) -> str:
        """Return the name of the user, or the scope of a visitor who is not signed in."""
        return row.who
