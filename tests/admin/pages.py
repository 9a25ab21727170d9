"""Addresses and contents of the pages of the admin, and the permission to view them."""

from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from durable_agents import tool

VIEW = ("view_thread", "view_message", "view_stream", "view_toolcall", "view_delta", "view_pool", "view_attachment")


def listing(model):
    """Return the address of a list."""
    return reverse(f"admin:durable_agents_{model._meta.model_name}_changelist")


def page(row):
    """Return the address of the page of a row."""
    return reverse(f"admin:durable_agents_{row._meta.model_name}_change", args=[row.pk])


def html(response):
    """Return the text of a page that was found."""
    assert response.status_code == 200, response
    return response.content.decode()


def queries(client, url):
    """Return how many queries a page makes when Django has looked up its content types before."""
    client.get(url)
    with CaptureQueriesContext(connection) as captured:
        html(client.get(url))
    return len(captured)


HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


APPROVAL = {"needs_approval": True}
DEFERRED = {"kind": "deferred"}
CLIENT = {"kind": "client", "answered_by": "owner"}


@tool(after_crash="ask")
def wire(word: str = "") -> str:
    """Send money."""
    return word


INBOX = "admin:durable_agents_toolcall_inbox"


def decide(client, call, name, *, back="inbox", **given):
    """Press a button; return where it leads and what is said there."""
    address = reverse(f"admin:durable_agents_toolcall_{name}", args=[call.pk])
    response = client.post(address, {"back": back, **given})
    assert response.status_code == 302, response.content
    return response.url, [str(message) for message in get_messages(response.wsgi_request)]


def entries(call):
    """Return what the log says of this call."""
    found = LogEntry.objects.filter(object_id=str(call.pk), content_type__model="toolcall").order_by("pk")
    return list(found.values_list("change_message", flat=True))


def inbox(client, **query):
    """Return the inbox as text."""
    return html(client.get(reverse(INBOX), query))
