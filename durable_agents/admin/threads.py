"""Hides what can be done to threads in the admin: read them as conversations, stop, resume, retry, fork, export and
delete them."""

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
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from durable_agents import lifecycle
from durable_agents.admin.calls import THREAD, deciding_context
from durable_agents.admin.conversation import conversation
from durable_agents.admin.display import age, all_tokens, badge, called, money, readable, tokens
from durable_agents.admin.rows import ReadOnlyAdmin
from durable_agents.exceptions import DurableAgentsError
from durable_agents.models import Message, Stream, Thread, ThreadStatus, ToolCall
from durable_agents.reading import export_thread
from durable_agents.transcript import get_thread


@dataclass(frozen=True, kw_only=True)
class Move:
    """Something that may be done to a thread: how it is called, how it is drawn, and how it is told afterwards."""

    name: str
    label: Any
    draw: Callable[[Thread], Thread]
    begins_at: frozenset[ThreadStatus]
    """Whose threads it moves; the others are left alone."""
    entry: str
    done: Callable[[int], str]
    nothing: Any


STOP = Move(
    name="stop",
    label=_("Stop"),
    draw=lifecycle.stop_thread,
    begins_at=frozenset({ThreadStatus.STREAMING, ThreadStatus.AWAITING_TOOL_RESULTS}),
    entry="Stopped the run.",
    done=lambda count: ngettext("%d thread was stopped.", "%d threads were stopped.", count) % count,
    nothing=_("There was no run to stop."),
)
RESUME = Move(
    name="resume",
    label=_("Resume"),
    draw=lifecycle.resume_thread,
    begins_at=frozenset({ThreadStatus.STOPPED, ThreadStatus.FAILED}),
    entry="Resumed the thread.",
    done=lambda count: ngettext("%d thread goes on.", "%d threads go on.", count) % count,
    nothing=_("There was nothing to resume: no thread was stopped or failed."),
)
RETRY = Move(
    name="retry",
    label=_("Retry"),
    draw=lifecycle.resume_thread,
    begins_at=frozenset({ThreadStatus.FAILED}),
    entry="Tried the failed run again.",
    done=lambda count: ngettext("%d thread tries again.", "%d threads try again.", count) % count,
    nothing=_("There was nothing to try again: no thread failed."),
)
MOVES = (STOP, RESUME, RETRY)


@admin.register(Thread)
class ThreadAdmin(ReadOnlyAdmin[Thread]):
    """Threads: a list to find them in, and a page on which each is a conversation."""

    list_display = ("called", "shown_status", "agent", "owner", "scope", "age", "used", "price")
    list_filter = ("status", "agent", "archived", "created_at")
    list_select_related = ("owner",)
    search_fields = ("title", "client_id", "scope", f"owner__{get_user_model().USERNAME_FIELD}")
    ids: ClassVar[tuple[str, ...]] = ("pk",)
    heavy = ("metadata", "context", "retry", "error_message")
    actions = ("stop_selected", "resume_selected", "retry_selected", "fork_selected", "export_selected")
    change_form_template = "durable_agents/admin/thread.html"
    shown = readable(
        Thread,
        *("id", "client_id", "agent", "owner", "scope", "title", "archived", "status", "error_code", "error_message"),
        *("retry", "metadata", "context", "input_tokens", "output_tokens", "cached_input_tokens"),
        *("cache_write_tokens", "reasoning_tokens", "cost", "rev", "stop_rev", "last_position", "last_number"),
        *("run_steps", "parent_tool_call", "forked_from", "created_at", "updated_at"),
    )

    @admin.display(description=_("thread"), ordering="title")
    def called(self, row: Thread) -> str:
        """Its title, or the beginning of its id."""
        return called(row)

    @admin.display(description=_("status"), ordering="status")
    def shown_status(self, row: Thread) -> str:
        """The status."""
        return badge(row.status, row.get_status_display())

    @admin.display(description=_("age"), ordering="created_at")
    def age(self, row: Thread) -> str:
        """How old it is."""
        return age(row.created_at)

    @admin.display(description=_("tokens"))
    def used(self, row: Thread) -> str:
        """What was used, in all."""
        return all_tokens(row)

    @admin.display(description=_("cost"), ordering="cost")
    def price(self, row: Thread) -> str:
        """What it cost."""
        return money(row.cost) or "-"

    # What may be done.

    def has_move_permission(self, request: HttpRequest) -> bool:
        """Whoever may change threads; nothing else on these pages asks for that permission."""
        return bool(request.user.has_perm("durable_agents.change_thread"))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may delete threads."""
        return admin.ModelAdmin.has_delete_permission(self, request, obj)

    @admin.action(description=_("Stop the selected threads"), permissions=["move"])
    def stop_selected(self, request: HttpRequest, threads: QuerySet[Thread]) -> None:
        """Stop their runs."""
        self._move(request, threads, STOP)

    @admin.action(description=_("Resume the selected threads"), permissions=["move"])
    def resume_selected(self, request: HttpRequest, threads: QuerySet[Thread]) -> None:
        """Try again what was stopped or failed."""
        self._move(request, threads, RESUME)

    @admin.action(description=_("Retry the selected threads that failed"), permissions=["move"])
    def retry_selected(self, request: HttpRequest, threads: QuerySet[Thread]) -> None:
        """Try again what failed, and leave alone what was stopped."""
        self._move(request, threads, RETRY)

    def _move(self, request: HttpRequest, threads: Iterable[Thread], move: Move) -> None:
        """Draw the arrow for each thread, with a log entry for each one that it moved."""
        count = 0
        for thread in threads:
            try:
                before = get_thread(thread.pk)  # a worker may have moved it since it was listed
                if before.status not in move.begins_at or move.draw(before).status in move.begins_at:
                    continue
            except DurableAgentsError as error:
                self.message_user(request, str(error), messages.ERROR)
                continue
            self.log_change(request, thread, move.entry)
            count += 1
        if count:
            self.message_user(request, move.done(count), messages.SUCCESS)
        else:
            self.message_user(request, move.nothing, messages.WARNING)

    def get_urls(self) -> list[URLPattern]:
        """The pages of every model, and one address for each thing to do."""
        views = {move.name: self._view(partial(self._move_one, move=move), self.has_move_permission) for move in MOVES}
        views["fork"] = self._view(self._fork_one, self.has_fork_permission)
        views["export"] = self._view(self._export_one, self.has_export_permission)
        doing = [
            path(
                f"<path:object_id>/{name}/",
                self.admin_site.admin_view(require_POST(view)),
                name=f"durable_agents_thread_{name}",
            )
            for name, view in views.items()
        ]
        return [*doing, *super().get_urls()]

    def _view(
        self, do: Callable[[HttpRequest, Thread], HttpResponse], is_allowed: Callable[[HttpRequest], bool]
    ) -> Callable[..., HttpResponse]:
        def view(request: HttpRequest, object_id: str) -> HttpResponse:
            """Do it to one thread, for those who may."""
            if not is_allowed(request):
                raise PermissionDenied
            thread = self.get_object(request, unquote(object_id))
            if thread is None:
                raise Http404
            return do(request, thread)

        return view

    def _move_one(self, request: HttpRequest, thread: Thread, *, move: Move) -> HttpResponse:
        self._move(request, [thread], move)
        return self._page_of(thread)

    def _page_of(self, thread: Thread) -> HttpResponse:
        page = reverse("admin:durable_agents_thread_change", args=[thread.pk], current_app=self.admin_site.name)
        return HttpResponseRedirect(page)

    # Copies.

    def has_fork_permission(self, request: HttpRequest) -> bool:
        """Whoever may add threads: nobody adds one here by a form."""
        return bool(request.user.has_perm("durable_agents.add_thread"))

    def has_export_permission(self, request: HttpRequest) -> bool:
        """Whoever may read what is exported."""
        return bool(request.user.has_perm("durable_agents.view_thread")) and _may_read(request)

    @admin.action(description=_("Fork the selected threads"), permissions=["fork"])
    def fork_selected(self, request: HttpRequest, threads: QuerySet[Thread]) -> None:
        """Begin a thread with what was said in each; what goes on in one is unknown to the other."""
        count = sum(self._fork(request, thread) is not None for thread in threads)
        if count:
            done = ngettext("%d thread was forked.", "%d threads were forked.", count) % count
            self.message_user(request, done, messages.SUCCESS)

    def _fork(self, request: HttpRequest, thread: Thread) -> Thread | None:
        """The fork, with an entry in the log of both; None, and a message, where there cannot be one."""
        try:
            fork = lifecycle.fork_thread(thread)
        except DurableAgentsError as error:
            self.message_user(request, str(error), messages.ERROR)
            return None
        self.log_change(request, thread, f"Forked as {fork.pk}.")
        self.log_addition(request, fork, f"Forked from {thread.pk}.")
        return fork

    def _fork_one(self, request: HttpRequest, thread: Thread) -> HttpResponse:
        fork = self._fork(request, thread)
        if fork is not None:
            self.message_user(request, _("This is the fork: what was said, up to here."), messages.SUCCESS)
        return self._page_of(fork or thread)

    @admin.action(description=_("Export the selected threads"), permissions=["export"])
    def export_selected(self, request: HttpRequest, threads: QuerySet[Thread]) -> HttpResponse:
        """A file with a list of them."""
        return self._file("threads.json", [self._exported(request, thread) for thread in threads])

    def _export_one(self, request: HttpRequest, thread: Thread) -> HttpResponse:
        return self._file(f"thread-{thread.pk}.json", self._exported(request, thread))

    def _exported(self, request: HttpRequest, thread: Thread) -> dict[str, Any]:
        exported = export_thread(thread)
        self.log_change(request, thread, "Exported the thread.")
        return exported

    def _file(self, name: str, content: Any) -> HttpResponse:
        text = json.dumps(content, ensure_ascii=False, indent=2)
        disposition = f'attachment; filename="{name}"'
        return HttpResponse(text, content_type="application/json", headers={"Content-Disposition": disposition})

    # The page of one thread.

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The page, with the conversation for those who may read what it consists of."""
        thread: Thread | None = kwargs.get("obj")
        if thread is not None:
            context["thread"] = thread
            context["used"], context["price"] = tokens(thread), money(thread.cost)
            context["moves"] = self._moves(thread) if self.has_move_permission(request) else []
            context["may_fork"] = self.has_fork_permission(request) and not thread.is_running
            context["may_export"] = self.has_export_permission(request)
            context["conversation"] = conversation(thread) if _may_read(request) else None
            context |= deciding_context(request, back=THREAD)
        return super().render_change_form(request, context, *args, **kwargs)

    def _moves(self, thread: Thread) -> list[Move]:
        """What there is to do: the others would do nothing."""
        if thread.status == ThreadStatus.FAILED:
            return [RETRY]
        return [move for move in (STOP, RESUME) if thread.status in move.begins_at]

    # Deleting.

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """What goes with the threads, counted and not listed: a long thread has thousands of rows."""
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
        """Delete a thread as everybody else does."""
        lifecycle.delete_thread(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Thread]) -> None:
        """Delete threads as everybody else does."""
        for thread in queryset:
            lifecycle.delete_thread(thread)


def _may_read(request: HttpRequest) -> bool:
    """Whether the caller may view everything that a conversation is made of."""
    made_of = (Message, Stream, ToolCall)
    return all(request.user.has_perm(f"durable_agents.view_{model._meta.model_name}") for model in made_of)
