"""The demo's only page; everything on it comes through the API and the websocket."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


@login_required
def chat(request: HttpRequest) -> HttpResponse:
    """Show the chat page."""
    return render(request, "demo/chat.html")
