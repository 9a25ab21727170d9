"""Read-only admin for messages, attempts, deltas, files, pools and problems of workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar
from uuid import UUID

from django.contrib import admin
from django.db.models import Model, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from durable_agents.admin.decisions import waiting
from durable_agents.admin.formatting import Show, age, all_tokens, badge, brief, called, money, readable
from durable_agents.admin.log_entry_texts import translated
from durable_agents.models import Attachment, Delta, Message, Pool, Stream, Thread, WorkerProblem

Row = TypeVar("Row", bound=Model)

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Row]
else:

    class ModelAdmin(admin.ModelAdmin, Generic[Row]):
        """A generic ModelAdmin. Django's own class is generic only in its type stubs."""


class ReadOnlyAdmin(ModelAdmin[Row]):
    """An admin for rows that can be viewed but not changed. Lists do not load the fields named in ``heavy``."""

    heavy: ClassVar[tuple[str, ...]] = ()
    ids: ClassVar[tuple[str, ...]] = ("pk", "thread")
    shown: ClassVar[Sequence[str | Show]] = ()
    change_list_template = "durable_agents/admin/list.html"
    # With True, Django would count all rows of the table for each search.
    show_full_result_count = False
    list_per_page = 50

    class Media:
        css: ClassVar[dict[str, tuple[str, ...]]] = {"all": ("durable_agents/admin.css",)}

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: rows cannot be added."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Return False: rows cannot be changed."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Row | None = None) -> bool:
        """Return False on the pages of this model. On other pages, such as the page that deletes a user, return
        whether the signed-in user has the permission.
        """
        # Deleting a user also deletes the rows of the user's threads. Before that, Django asks the admin of each row's
        # model whether the row may be deleted.
        own_pages = f"{self.opts.app_label}_{self.opts.model_name}_"
        match = request.resolver_match
        is_own = match is not None and str(match.url_name).startswith(own_pages)
        return not is_own and super().has_delete_permission(request, obj)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, object] | None = None) -> HttpResponse:
        """Show the list. Users who may open the inbox of waiting calls also get a link to it."""
        user = request.user
        may_open = user.has_perm("durable_agents.view_toolcall") or user.has_perm("durable_agents.change_toolcall")
        context = {"waiting": waiting().count()} if may_open else {}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, object] | None = None
    ) -> HttpResponse:
        """Show the log entries of a row, in the reader's language."""
        response = super().history_view(request, object_id, extra_context)
        page = getattr(response, "context_data", {}).get("action_list")
        if page is not None:
            page.object_list = list(page.object_list)
            for entry in page.object_list:
                entry.change_message = translated(entry.change_message)
        return response

    def get_fields(self, request: HttpRequest, obj: object = None) -> Any:
        """Return the fields of a row's page."""
        return self.shown

    def get_readonly_fields(self, request: HttpRequest, obj: object = None) -> Any:
        """Return all fields of the page, because none can be edited."""
        return self.shown

    def get_queryset(self, request: HttpRequest) -> QuerySet[Row]:
        """Return the rows. In lists, do not load the fields named in ``heavy``."""
        rows = super().get_queryset(request)
        match = request.resolver_match
        is_list = match is not None and str(match.url_name).endswith("_changelist")
        return rows.defer(*self.heavy) if is_list else rows

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Row], search_term: str
    ) -> tuple[QuerySet[Row], bool]:
        """Return the rows that match the search. If the search term is an id, return the row with this id, and the
        rows of the thread with this id.
        """
        try:
            wanted = UUID(search_term.strip())
        except ValueError:
            return super().get_search_results(request, queryset, search_term)
        matches = Q()
        for name in self.ids:
            matches |= Q(**{name: wanted})
        return queryset.filter(matches), False


def may_view_threads(request: HttpRequest) -> bool:
    """Return whether the user may see the pages of threads."""
    user = request.user
    return user.has_perm("durable_agents.view_thread") or user.has_perm("durable_agents.change_thread")


MAX_SCOPES = 50


def scope_filter(path: str = "scope") -> type[admin.SimpleListFilter]:
    """Return a list filter for the scope of threads. ``path`` is the ORM lookup from a row to the scope.

    The filter offers the first ``MAX_SCOPES`` scopes in alphabetical order. Any other scope can be set in the URL.
    """

    class ScopeFilter(admin.SimpleListFilter):
        title = _("scope")
        parameter_name = "scope"

        def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
            scopes = Thread.objects.exclude(scope="").order_by("scope").values_list("scope", flat=True).distinct()
            return [(scope, scope) for scope in scopes[:MAX_SCOPES]]

        def queryset(self, request: HttpRequest, queryset: QuerySet[Model]) -> QuerySet[Model]:
            return queryset if self.value() is None else queryset.filter(**{path: self.value()})

    return ScopeFilter


class OfThreadAdmin(ReadOnlyAdmin[Row]):
    """An admin for rows that belong to a thread, with a link to the thread's page."""

    list_select_related = ("thread",)

    def get_list_display(self, request: HttpRequest) -> Any:
        """Return the columns. Users who may not view threads get the thread's name instead of a link to its page."""
        columns = super().get_list_display(request)
        if may_view_threads(request):
            return columns
        return ["conversation_name" if column == "conversation" else column for column in columns]

    @admin.display(description=_("thread"), ordering="thread")
    def conversation_name(self, row: Any) -> str:
        """Return the thread's name."""
        return called(row.thread) if row.thread_id else "-"

    @admin.display(description=_("thread"), ordering="thread")
    def conversation(self, row: Any) -> str:
        """Return a link to the thread's page."""
        page = reverse("admin:durable_agents_thread_change", args=[row.thread_id], current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', page, called(row.thread))

    @admin.display(description=_("age"), ordering="created_at")
    def age(self, row: Any) -> str:
        """Return how old the row is."""
        return age(row.created_at)


@admin.register(Message)
class MessageAdmin(OfThreadAdmin[Message]):
    """Admin for messages. The text of an assistant message is stored in its attempts (streams)."""

    list_display = ("place", "conversation", "role", "excerpt", "age")
    list_filter = ("role", scope_filter("thread__scope"), "created_at")
    search_fields = ("text", "client_id")
    heavy = ("parts", "text", "metadata", "thread__metadata", "thread__context")
    shown = readable(
        Message,
        *("id", "thread", "position", "queued_at", "client_id", "role", "sender", "parts", "metadata", "parent"),
        *("superseded_at", "rev", "created_at"),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        """Return the messages, each with the beginning of its text. For an assistant message, this is the text of the
        first step that has text.
        """
        # Load 81 characters, because ``brief`` shows 80. The 81st tells ``brief`` that the text is longer.
        steps = Stream.objects.in_transcript().filter(message=OuterRef("pk")).exclude(text="")
        step = Subquery(steps.annotate(beginning=Left("text", 81)).values("beginning")[:1])
        return super().get_queryset(request).annotate(own_excerpt=Left("text", 81), step_excerpt=step)

    @admin.display(description=_("message"), ordering="position")
    def place(self, row: Message) -> str:
        """Return the message's position in the thread."""
        return gettext("queued") if row.position is None else f"#{row.position}"

    @admin.display(description=_("text"))
    def excerpt(self, row: Any) -> str:
        """Return the beginning of the text."""
        return brief(row.own_excerpt or row.step_excerpt or "-")


@admin.register(Stream)
class StreamAdmin(OfThreadAdmin[Stream]):
    """Admin for attempts at model calls. Each row records the token usage and the cost of one attempt."""

    list_display = ("number", "conversation", "shown_state", "error_code", "model", "used", "price", "age")
    list_filter = ("state", "error_code", scope_filter(), "pool", "created_at")
    search_fields = ("model", "error_code", "lease_owner")
    heavy = ("parts", "text", "error_detail", "thread__metadata", "thread__context")
    shown = readable(
        Stream,
        *("id", "thread", "message", "number", "state", "finish_reason", "error_code", "error_detail", "parts"),
        *("model", "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens"),
        *("cost", "usage_estimated", "attempt", "crashes", "fence", "pool", "available_at", "lease_owner"),
        *("lease_expires_at", "rev", "created_at", "started_at", "finished_at"),
    )

    @admin.display(description=_("state"), ordering="state")
    def shown_state(self, row: Stream) -> str:
        """Return the state."""
        return badge(row.state, row.get_state_display())

    @admin.display(description=_("tokens"))
    def used(self, row: Stream) -> str:
        """Return the total number of tokens."""
        return all_tokens(row)

    @admin.display(description=_("cost"), ordering="cost")
    def price(self, row: Stream) -> str:
        """Return the cost."""
        return money(row.cost) or "-"


@admin.register(Delta)
class DeltaAdmin(ReadOnlyAdmin[Delta]):
    """Admin for deltas, the fragments of an attempt's content. Deltas are deleted after their attempt is committed."""

    list_display = ("__str__", "stream", "seq")
    list_select_related = ("stream",)
    heavy = ("chunks", "stream__parts", "stream__text", "stream__error_detail")
    ids = ("stream", "stream__thread")
    search_fields = ("stream__model",)
    shown = readable(Delta, "stream", "seq", "chunks")


@admin.register(Attachment)
class AttachmentAdmin(OfThreadAdmin[Attachment]):
    """Admin for uploaded files. It does not show their content."""

    list_display = ("__str__", "conversation", "media_type", "bytes", "age")
    list_filter = ("media_type", scope_filter(), "created_at")
    list_select_related = ("thread",)
    search_fields = ("filename",)
    heavy = ("thread__metadata", "thread__context")
    shown = readable(Attachment, "id", "thread", "owner", "scope", "filename", "media_type", "size", "created_at")

    @admin.display(description=_("size"), ordering="size")
    def bytes(self, row: Attachment) -> str:
        """Return the size of the file."""
        return filesizeformat(row.size)

    @admin.display(description=_("thread"), ordering="thread")
    def conversation(self, row: Attachment) -> str:
        """Return a link to the thread whose message contains the file."""
        return super().conversation(row) if row.thread_id else "-"


@admin.register(Pool)
class PoolAdmin(ReadOnlyAdmin[Pool]):
    """Admin for pools. The settings limit how many model calls and tool calls of a pool may run at the same time."""

    list_display = ("name", "limit")
    shown = ("name", "limit")
    ids = ()


@admin.register(WorkerProblem)
class WorkerProblemAdmin(ReadOnlyAdmin[WorkerProblem]):
    """Admin for problems of worker processes within the last day."""

    list_display = ("kind", "cluster", "excerpt", "since", "seen_at", "ended_at")
    list_filter = ("kind", "cluster")
    search_fields = ("holder", "detail")
    ids = ()
    shown = ("kind", "cluster", "holder", "detail", "since", "seen_at", "ended_at")

    @admin.display(description=_("detail"))
    def excerpt(self, row: WorkerProblem) -> str:
        """Return the beginning of the problem's detail."""
        return brief(row.detail or "-")
