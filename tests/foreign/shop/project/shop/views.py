"""The chat's page, and what the warehouse calls."""

import hashlib
import hmac
import json

from django.conf import settings
from django.contrib.auth.decorators import login_not_required, permission_required
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from durable_agents import ThreadNotFoundError, ToolCallNotFoundError, ToolCallNotPendingError, add_tool_result
from durable_agents.models import ToolCall
from durable_agents.policies import can_decide, public_threads
from shop.models import Inquiry


def chat(request):
    return render(request, "shop/chat.html")


@permission_required("shop.approve_refund", raise_exception=True)
def waiting(request):
    calls = ToolCall.objects.filter(status="approval_requested", thread__in=public_threads(request))
    calls = calls.select_related("thread", "message").order_by("created_at")
    return render(request, "shop/waiting.html", {"calls": [call for call in calls if can_decide(request, call)]})


def thread(request, thread_id):
    return render(request, "shop/thread.html", {"thread_id": thread_id})


@login_not_required
@csrf_exempt
@require_POST
def stock_counted(request):
    """The warehouse has counted: `{"inquiry": 7, "in_stock": 3}`, signed with the shared secret."""
    signature = hmac.new(settings.WEBHOOK_SECRET.encode(), request.body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(request.headers.get("X-Signature", "").encode(), signature.encode()):
        return HttpResponse(status=403)
    body = json.loads(request.body)
    inquiry = get_object_or_404(Inquiry, pk=body["inquiry"])
    try:
        add_tool_result(inquiry.thread_id, inquiry.call, {"in_stock": body["in_stock"]})
    except (ThreadNotFoundError, ToolCallNotFoundError):
        return HttpResponse(status=404)
    except ToolCallNotPendingError:
        return HttpResponse(status=409)
    return HttpResponse(status=204)
