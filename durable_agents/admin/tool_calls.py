"""Admin for tool calls: their list, their pages, and the inbox of calls that wait for a person."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from durable_agents.admin.audit import staff
from durable_agents.admin.conversation import shown_call
from durable_agents.admin.decisions import DECISIONS, TIMES, Decision, Question, waiting
from durable_agents.admin.formatting import badge, readable
from durable_agents.admin.read_only_admins import OfThreadAdmin, may_view_threads, scope_filter
from durable_agents.chat_texts import localized
from durable_agents.exceptions import DurableAgentsError
from durable_agents.models import ToolCall

MAX_SHOWN = 50
INBOX, THREAD = "inbox", "thread"


@admin.register(ToolCall)
class ToolCallAdmin(OfThreadAdmin[ToolCall]):
    """Tool calls: a list, a page for each call, and the inbox of calls that wait for a person."""

    list_display = ("tool_call_id", "tool_name", "shown_status", "conversation", "kind", "attempt", "age")
    list_filter = ("status", "tool_name", "kind", scope_filter("thread__scope"), "pool", "created_at")
    search_fields = ("tool_call_id", "tool_name", "error_code")
    heavy = ("arguments", "approved_arguments", "result", "progress", "error", "error_detail")
    shown = readable(
        ToolCall,
        *("id", "thread", "message", "stream", "tool_call_id", "provider_call_id", "tool_name", "kind", "status"),
        *("answered_by", "approved_by", "arguments", "approved_arguments", "result", "progress"),
        *("error_code", "error", "error_detail", "attempt", "max_attempts", "crashes", "fence", "pool", "available_at"),
        *("timeout", "expires_at", "lease_owner", "lease_expires_at", "approval_requested_at", "approval_decided_at"),
        *(
            "answered_by_user",
            "approval_decided_by",
            "approval_reason",
            "approval_digest",
            "rev",
            "created_at",
            "finished_at",
        ),
    )

    @admin.display(description=_("status"), ordering="status")
    def shown_status(self, row: ToolCall) -> str:
        """Return the status."""
        return badge(row.status, row.get_status_display())

    # The inbox.

    def get_urls(self) -> list[URLPattern]:
        """Return the standard admin URLs, the URL of the inbox, and one URL for each decision."""
        inbox = path("inbox/", self.admin_site.admin_view(self.inbox), name="durable_agents_toolcall_inbox")
        decisions = [
            path(
                f"<path:object_id>/{decision.name}/",
                self.admin_site.admin_view(require_POST(self._decision_view(decision))),
                name=f"durable_agents_toolcall_{decision.name}",
            )
            for decision in DECISIONS
        ]
        return [inbox, *decisions, *super().get_urls()]

    def inbox(self, request: HttpRequest) -> HttpResponse:
        """Show all calls that wait for a person, oldest first, each with its available decisions."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        chosen = request.GET.get("for")
        question = Question(chosen) if chosen in Question.values else None
        rows = waiting(question).select_related("thread__owner", "approval_decided_by")
        calls = [shown_call(call, request.user) for call in rows[: MAX_SHOWN + 1]]
        context = {
            **self.admin_site.each_context(request),
            **decision_context(request, back=INBOX),
            "title": gettext("Waiting for a person"),
            "opts": self.opts,
            "media": self.media,
            "calls": calls[:MAX_SHOWN],
            "is_cut": len(calls) > MAX_SHOWN,
            "chosen": question,
            "may_view_threads": may_view_threads(request),
            "counts": [(kind, waiting(kind).count()) for kind in Question],
        }
        # If the project has several admin sites, the links on the page must lead to this one.
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "durable_agents/admin/inbox.html", context)

    # Decisions about one call.

    def _decision_view(self, decision: Decision) -> Callable[..., HttpResponse]:
        def view(request: HttpRequest, object_id: str) -> HttpResponse:
            """Apply the decision to one call, and redirect to the page that contained the form."""
            if not may_decide(request):
                raise PermissionDenied
            call = self.get_object(request, unquote(object_id))
            if call is None:
                raise Http404
            self._decide(request, call, decision)
            name, arguments = "toolcall_inbox", []
            if request.POST.get("back") == THREAD:
                name, arguments = "thread_change", [call.thread_id]
            # Do not take the URL from the form, because a forged form could redirect the user to any site.
            back = reverse(f"admin:durable_agents_{name}", args=arguments, current_app=self.admin_site.name)
            return HttpResponseRedirect(back)

        return view

    def _decide(self, request: HttpRequest, call: ToolCall, decision: Decision) -> None:
        """Apply the decision, and show a message to the user. If the decision had an effect, write a log entry."""
        try:
            decided = decision.run(call, request.POST, staff(request))
        except (DurableAgentsError, ValueError) as error:
            self.message_user(request, localized(getattr(error, "code", ""), str(error)), messages.ERROR)
            return
        # If ``rev`` is unchanged, the decision had no effect, so there is nothing to log. Either the form was sent
        # twice, or somebody else decided first.
        if decided.rev != call.rev:
            self.log_change(request, decided, decision.log_entry(decided, request.POST))
        self.message_user(request, str(decision.done), messages.SUCCESS)


def may_decide(request: HttpRequest) -> bool:
    """Return whether the user has the permission to decide about tool calls: the change permission."""
    return bool(request.user.has_perm("durable_agents.change_toolcall"))


def decision_context(request: HttpRequest, *, back: str) -> dict[str, object]:
    """Return the template context for pages that show tool calls. ``back`` names the page to return to after a
    decision: ``INBOX`` or ``THREAD``.
    """
    return {"may_decide": may_decide(request), "back": back, "times": TIMES}
