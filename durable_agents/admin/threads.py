"""Admin for threads: read them as conversations; stop, resume, retry, fork, export and delete them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import ProtectedError, QuerySet, RestrictedError
from django.db.models.deletion import Collector
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from durable_agents import lifecycle
from durable_agents.admin import log_entry_texts
from durable_agents.admin.audit import MAX_ENTRIES, staff
from durable_agents.admin.conversation import conversation
from durable_agents.admin.formatting import age, all_tokens, badge, called, money, readable, tokens
from durable_agents.admin.read_only_admins import ReadOnlyAdmin, scope_filter
from durable_agents.admin.tool_calls import THREAD, decision_context
from durable_agents.chat_texts import localized
from durable_agents.exceptions import DurableAgentsError
from durable_agents.models import AuditEntry, Message, Stream, Thread, ThreadStatus, ToolCall
from durable_agents.reading import export_thread, read_only
from durable_agents.transcript import get_thread


@dataclass(frozen=True, kw_only=True)
class ThreadAction:
    """An action on threads: its label, the ``lifecycle`` function to call, its log entry, and the notices
    that the admin's user sees.
    """

    name: str
    label: Promise
    run: Callable[..., Thread]
    statuses: frozenset[ThreadStatus]
    """The action changes only threads with these statuses."""
    entry: str
    done: Callable[[int], str]
    if_none: Promise


STOP = ThreadAction(
    name="stop",
    label=_("Stop"),
    run=lifecycle.stop_thread,
    statuses=frozenset({ThreadStatus.STREAMING, ThreadStatus.AWAITING_TOOL_RESULTS}),
    entry=log_entry_texts.STOPPED,
    done=lambda count: ngettext("%d thread was stopped.", "%d threads were stopped.", count) % count,
    if_none=_("There was no run to stop."),
)
RESUME = ThreadAction(
    name="resume",
    label=_("Resume"),
    run=lifecycle.resume_thread,
    statuses=frozenset({ThreadStatus.STOPPED, ThreadStatus.FAILED}),
    entry=log_entry_texts.RESUMED,
    done=lambda count: ngettext("%d thread goes on.", "%d threads go on.", count) % count,
    if_none=_("There was nothing to resume: no thread was stopped or failed."),
)
RETRY = ThreadAction(
    name="retry",
    label=_("Retry"),
    run=lifecycle.resume_thread,
    statuses=frozenset({ThreadStatus.FAILED}),
    entry=log_entry_texts.RETRIED,
    done=lambda count: ngettext("%d thread tries again.", "%d threads try again.", count) % count,
    if_none=_("There was nothing to try again: no thread failed."),
)
ACTIONS = (STOP, RESUME, RETRY)


@admin.register(Thread)
class ThreadAdmin(ReadOnlyAdmin[Thread]):
    """Threads: a list that can be searched, and a page for each thread that shows the conversation."""

    list_display = ("called", "shown_status", "agent", "owner", "scope", "age", "used", "price")
    list_filter = ("status", "agent", scope_filter(), "archived", "created_at")
    list_select_related = ("owner",)
    search_fields = ("title", "client_id", "scope", f"owner__{get_user_model().USERNAME_FIELD}")
    ids: ClassVar[tuple[str, ...]] = ("pk",)
    heavy = ("metadata", "context", "retry", "error_message")
    actions = ("stop_selected", "resume_selected", "retry_selected", "fork_selected", "export_selected")
    change_form_template = "durable_agents/admin/thread.html"
    shown = readable(
        Thread,
        *(
            "id",
            "client_id",
            "agent",
            "agent_is_public",
            "owner",
            "scope",
            "title",
            "archived",
            "status",
            "error_code",
            "error_message",
        ),
        *("retry", "metadata", "context", "input_tokens", "output_tokens", "cached_input_tokens"),
        *("cache_write_tokens", "reasoning_tokens", "cost", "rev", "stop_rev", "last_position", "last_number"),
        *("run_steps", "parent_tool_call", "forked_from", "created_at", "updated_at"),
    )

    @admin.display(description=_("thread"), ordering="title")
    def called(self, row: Thread) -> str:
        """Return the thread's title, or the beginning of its id."""
        return called(row)

    @admin.display(description=_("status"), ordering="status")
    def shown_status(self, row: Thread) -> str:
        """Return the status as a label."""
        return badge(row.status, row.get_status_display())

    @admin.display(description=_("age"), ordering="created_at")
    def age(self, row: Thread) -> str:
        """Return how old the thread is."""
        return age(row.created_at)

    @admin.display(description=_("tokens"))
    def used(self, row: Thread) -> str:
        """Return the total number of tokens."""
        return all_tokens(row)

    @admin.display(description=_("cost"), ordering="cost")
    def price(self, row: Thread) -> str:
        """Return the cost."""
        return money(row.cost) or "-"

    # Actions.

    def has_change_threads_permission(self, request: HttpRequest) -> bool:
        """Return whether the user has the change permission, which the actions need. It does not allow editing."""
        return bool(request.user.has_perm("durable_agents.change_thread"))

    def has_delete_permission(self, request: HttpRequest, obj: Thread | None = None) -> bool:
        """Return whether the user may delete threads."""
        # Threads can be deleted, but ``ReadOnlyAdmin`` would return False here. Call Django's method instead.
        return admin.ModelAdmin.has_delete_permission(self, request, obj)

    @admin.action(description=_("Stop the selected threads"), permissions=["change_threads"])
    def stop_selected(self, request: HttpRequest, threads: QuerySet[Thread]) -> None:
        """Stop the runs of the selected threads."""
        self._apply(request, threads, STOP)

    @admin.action(description=_("Resume the selected threads"), permissions=["change_threads"])
    def resume_selected(self, request: HttpRequest, threads: QuerySet[Thread]) -> None:
        """Resume the selected threads that are stopped or failed."""
        self._apply(request, threads, RESUME)

    @admin.action(description=_("Retry the selected threads that failed"), permissions=["change_threads"])
    def retry_selected(self, request: HttpRequest, threads: QuerySet[Thread]) -> None:
        """Resume the selected threads that failed, but not those that were stopped."""
        self._apply(request, threads, RETRY)

    def _apply(self, request: HttpRequest, threads: Iterable[Thread], action: ThreadAction) -> None:
        """Apply the action to each thread. Write a log entry for each thread that the action changed."""
        count = 0
        for thread in threads:
            try:
                # A worker may have changed the thread since the list was loaded, so load the thread again.
                before = get_thread(thread.pk)
                if before.status not in action.statuses:
                    continue
                if action.run(before, by=staff(request)).status in action.statuses:
                    continue
            except DurableAgentsError as error:
                self.message_user(request, localized(error.code, str(error)), messages.ERROR)
                continue
            self.log_change(request, thread, action.entry)
            count += 1
        if count:
            self.message_user(request, action.done(count), messages.SUCCESS)
        else:
            self.message_user(request, str(action.if_none), messages.WARNING)

    def get_urls(self) -> list[URLPattern]:
        """Return the standard admin URLs and one URL for each action."""
        views = {
            action.name: self._view(partial(self._apply_one, action=action), self.has_change_threads_permission)
            for action in ACTIONS
        }
        views["fork"] = self._view(self._fork_one, self.has_fork_permission)
        views["export"] = self._view(self._export_one, self.has_export_permission)
        actions = [
            path(
                f"<path:object_id>/{name}/",
                self.admin_site.admin_view(require_POST(view)),
                name=f"durable_agents_thread_{name}",
            )
            for name, view in views.items()
        ]
        return [*actions, *super().get_urls()]

    def _view(
        self, do: Callable[[HttpRequest, Thread], HttpResponse], is_allowed: Callable[[HttpRequest], bool]
    ) -> Callable[..., HttpResponse]:
        def view(request: HttpRequest, object_id: str) -> HttpResponse:
            """Apply the action to one thread, if the user is allowed to."""
            if not is_allowed(request):
                raise PermissionDenied
            # Unquote the id, because the admin quotes keys in its URLs.
            thread = self.get_object(request, unquote(object_id))
            if thread is None:
                raise Http404
            return do(request, thread)

        return view

    def _apply_one(self, request: HttpRequest, thread: Thread, *, action: ThreadAction) -> HttpResponse:
        self._apply(request, [thread], action)
        return self._page_of(thread)

    def _page_of(self, thread: Thread) -> HttpResponse:
        page = reverse("admin:durable_agents_thread_change", args=[thread.pk], current_app=self.admin_site.name)
        return HttpResponseRedirect(page)

    # Forks and exports.

    def has_fork_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may add threads. In the admin, forking is the only way to add a thread."""
        return bool(request.user.has_perm("durable_agents.add_thread"))

    def has_export_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may view everything that an export contains."""
        return bool(request.user.has_perm("durable_agents.view_thread")) and _may_read(request)

    @admin.action(description=_("Fork the selected threads"), permissions=["fork"])
    def fork_selected(self, request: HttpRequest, threads: QuerySet[Thread]) -> None:
        """Fork the selected threads. Each fork is independent of its original."""
        count = sum(self._fork(request, thread) is not None for thread in threads)
        if count:
            done = ngettext("%d thread was forked.", "%d threads were forked.", count) % count
            self.message_user(request, done, messages.SUCCESS)

    def _fork(self, request: HttpRequest, thread: Thread) -> Thread | None:
        """Fork the thread, and write log entries for both threads. Return the fork; if forking failed, show the error
        and return None.
        """
        try:
            fork = lifecycle.fork_thread(thread, by=staff(request))
        except DurableAgentsError as error:
            self.message_user(request, localized(error.code, str(error)), messages.ERROR)
            return None
        self.log_change(request, thread, log_entry_texts.FORKED_AS % {"thread": fork.pk})
        self.log_addition(request, fork, log_entry_texts.FORKED_FROM % {"thread": thread.pk})
        return fork

    def _fork_one(self, request: HttpRequest, thread: Thread) -> HttpResponse:
        fork = self._fork(request, thread)
        if fork is not None:
            self.message_user(request, _("This is the fork: what was said, up to here."), messages.SUCCESS)
        return self._page_of(fork or thread)

    @admin.action(description=_("Export the selected threads"), permissions=["export"])
    def export_selected(self, request: HttpRequest, threads: QuerySet[Thread]) -> HttpResponse:
        """Return a JSON file with the exports of the selected threads."""
        return self._file("threads.json", [self._exported(request, thread) for thread in threads])

    def _export_one(self, request: HttpRequest, thread: Thread) -> HttpResponse:
        return self._file(f"thread-{thread.pk}.json", self._exported(request, thread))

    def _exported(self, request: HttpRequest, thread: Thread) -> dict[str, object]:
        exported = export_thread(thread)
        self.log_change(request, thread, log_entry_texts.EXPORTED)
        return exported

    def _file(self, name: str, content: object) -> HttpResponse:
        text = json.dumps(content, ensure_ascii=False, indent=2)
        disposition = f'attachment; filename="{name}"'
        return HttpResponse(text, content_type="application/json", headers={"Content-Disposition": disposition})

    # The page of one thread.

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,  # noqa: FBT001, FBT002
        change: bool = False,  # noqa: FBT001, FBT002
        form_url: str = "",
        obj: Thread | None = None,
    ) -> HttpResponse:
        """Show the thread's page. If the user may view messages, streams and tool calls, include the conversation."""
        thread = obj
        if thread is not None:
            context["thread"] = thread
            context["used"], context["price"] = tokens(thread), money(thread.cost)
            # Offer only actions that have an effect. For a failed thread, retrying and resuming are the same, so offer
            # only retrying.
            offered = [RETRY] if thread.status == ThreadStatus.FAILED else [STOP, RESUME]
            context["is_agent_removed"] = read_only(thread) is not None
            if context["is_agent_removed"]:
                offered = [STOP]
            may_change = self.has_change_threads_permission(request)
            context["actions"] = [action for action in offered if may_change and thread.status in action.statuses]
            context["may_fork"] = self.has_fork_permission(request) and not thread.is_running
            context["may_export"] = self.has_export_permission(request)
            may_audit = request.user.has_perm("durable_agents.view_auditentry")
            entries = AuditEntry.objects.filter(thread_id=thread.pk).select_related("user")
            context["audit"] = entries[:MAX_ENTRIES] if may_audit else None
            context["conversation"] = conversation(thread, request.user) if _may_read(request) else None
            context |= decision_context(request, back=THREAD)
        return super().render_change_form(request, context, add, change, form_url, obj)

    # Deleting threads.

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Return how many rows of each model would be deleted, instead of a list of all rows."""
        # Django's method would list every deleted row. A long thread has thousands of rows.
        collector = Collector(using=lifecycle.database(), origin=objs)
        try:
            collector.collect(objs)
        except (ProtectedError, RestrictedError) as error:
            holders = error.protected_objects if isinstance(error, ProtectedError) else error.restricted_objects
            return [], {}, set(), sorted(map(str, holders))
        counts: dict[str, int] = {}
        for model, rows in collector.data.items():
            counts[str(model._meta.verbose_name_plural)] = len(rows)
        for some in collector.fast_deletes:
            counts[str(some.model._meta.verbose_name_plural)] = some.count()
        return [str(thread) for thread in objs], {name: count for name, count in counts.items() if count}, set(), []

    def delete_model(self, request: HttpRequest, obj: Thread) -> None:
        """Delete a thread through ``lifecycle``."""
        lifecycle.delete_thread(obj, by=staff(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Thread]) -> None:
        """Delete threads through ``lifecycle``."""
        # Delete one thread at a time. A single DELETE statement would leave files in the storage, and workers would
        # continue the runs.
        for thread in queryset:
            lifecycle.delete_thread(thread, by=staff(request))


def _may_read(request: HttpRequest) -> bool:
    """Return whether the user may view all parts of a conversation: messages, streams and tool calls."""
    models = (Message, Stream, ToolCall)
    return all(request.user.has_perm(f"durable_agents.view_{model._meta.model_name}") for model in models)
