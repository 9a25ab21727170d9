"""The demo's pages. All their data comes from the API and the websocket."""

from contextlib import suppress
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext_lazy as _

from durable_agents.models import Thread

from .csp import offer_nonce

PROMPTS = [
    _("What is the weather in Paris and the time in Tokyo?"),
    _("What is 2.5 + 39.5?"),
    _("Count to ten"),
    _("Tell me a long story"),
    _("Book a table for four at Luigi's at 19:30"),
    _("Ask a colleague: do we ship on Friday?"),
    _("Let me pick a date for the launch"),
]
"""Suggested prompts for the chat page. The last three need an approval, a colleague's answer, or a date from the user.
"""


@login_required
def chat(request: HttpRequest) -> HttpResponse:
    """Show the chat page with the thread whose id is in `?thread=`."""
    return render(request, "demo/chat.html", {"thread": _own_thread(request), "prompts": PROMPTS})


@login_required
def examples(request: HttpRequest) -> HttpResponse:
    """Show a page with several ways to embed a chat, each in a few lines of code."""
    return render(request, "demo/examples.html", {"prompts": PROMPTS[:2]})


@login_required
def react(request: HttpRequest) -> HttpResponse:
    """Show a chat made with the React hooks, without a build step."""
    offer_nonce(request)
    return render(request, "demo/react.html")


def _own_thread(request: HttpRequest) -> Thread | None:
    """Return the thread in `?thread=` if it belongs to the user, otherwise None. The template shows its messages even
    without JavaScript.
    """
    with suppress(ValueError):
        return Thread.objects.filter(owner=request.user.pk, pk=UUID(request.GET.get("thread", ""))).first()
    return None
