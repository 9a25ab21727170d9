"""The demo's pages; all their data comes from the API and the websocket."""

from contextlib import suppress
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from durable_agents.models import Thread

from .csp import offer_nonce

PROMPTS = [
    "What is the weather in Paris and the time in Tokyo?",
    "What is 2.5 + 39.5?",
    "Count to ten",
    "Tell me a long story",
    "Book a table for four at Luigi's at 19:30",
    "Ask a colleague: do we ship on Friday?",
    "Let me pick a date for the launch",
]
"""The last three prompts wait for somebody: for an approval, a colleague's answer, a date."""


@login_required
def chat(request: HttpRequest) -> HttpResponse:
    """Show the chat page; `?thread=` names the thread."""
    return render(request, "demo/chat.html", {"thread": _own_thread(request), "prompts": PROMPTS})


@login_required
def examples(request: HttpRequest) -> HttpResponse:
    """Show the ways to put a chat on a page, each in a few lines."""
    return render(request, "demo/examples.html", {"prompts": PROMPTS[:2]})


@login_required
def react(request: HttpRequest) -> HttpResponse:
    """Show a chat made with the React hooks, without a build step."""
    offer_nonce(request)
    return render(request, "demo/react.html")


def _own_thread(request: HttpRequest) -> Thread | None:
    """Return the user's thread that the URL names, or None. The page shows its messages if scripts do not run."""
    with suppress(ValueError):
        return Thread.objects.filter(owner=request.user.pk, pk=UUID(request.GET.get("thread", ""))).first()
    return None
