"""A thread with everything in it, and staff with the permissions that a test names."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from durable_agents import Agent, create_thread, lifecycle
from durable_agents.exceptions import ErrorKind
from durable_agents.lifecycle import CallResult, FailedAttempt
from durable_agents.models import Thread, ToolCall, ToolCallStatus
from tests.admin.pages import APPROVAL, CLIENT, DEFERRED, VIEW, wire
from tests.api.calls import person, waiting_call
from tests.lifecycle.stage import Bells, Worker, calling, make_due, plain


@pytest.fixture(autouse=True)
def _quiet(bells: Bells) -> None:
    """Keep the queue out of it."""


@pytest.fixture(autouse=True)
def _english(settings: Any) -> None:
    """Show the pages in English, also in a project whose language is another one."""
    settings.LANGUAGE_CODE = "en"


@pytest.fixture
def owner(db: None) -> Any:
    """Return the user whose threads these are."""
    return person("owner")


@pytest.fixture
def staff(db: None) -> Callable[..., Client]:
    """Return a function that signs in a member of staff with these permissions."""
    numbers = count()

    def signed_in(*permissions: str) -> Client:
        user = person(f"staff{next(numbers)}", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = Client()
        client.force_login(user)
        return client

    return signed_in


@pytest.fixture
def reader(staff: Callable[..., Client]) -> Client:
    """Return somebody who may look at everything and do nothing."""
    return staff(*VIEW)


@pytest.fixture
def keeper(staff: Callable[..., Client]) -> Client:
    """Return somebody who may change threads as well."""
    return staff(*VIEW, "change_thread")


@pytest.fixture
def thread(agent: Agent, owner: Any, worker: Worker) -> Thread:
    """Return a thread with a failed attempt, a step with two calls, one of them failed, and an open stream."""
    thread = create_thread(
        agent, owner=owner, title="Weather", scope="acme", prompt="Sunny?", metadata={"colour": "red"}
    )
    ended = FailedAttempt(kind=ErrorKind.PROVIDER_5XX, detail="503 from upstream")
    lifecycle.retry_step(worker.claim_step(), ended, delay_seconds=60, max_attempts=4)
    make_due(thread)
    worker.answer("Let me look.", calling("plain", word="Paris"), calling("once", word="Rome"))
    worker.settle({"sky": "blue"})
    failed = CallResult(status=ToolCallStatus.FAILED, error="No such city.", error_detail="Traceback: KeyError")
    lifecycle.finish_tool_call(worker.claim_call(), failed)
    worker.say(worker.claim_step(), "The sky ", "is bl")
    return thread


@pytest.fixture
def approval(agent, owner):
    """Return a call that waits for approval."""
    return waiting_call(owner, **APPROVAL)


@pytest.fixture
def browser(agent, owner):
    """Return a call that waits for the browser of its thread's owner."""
    return waiting_call(owner, **CLIENT)


@pytest.fixture
def deferred(agent, owner, worker):
    """Return a call that was announced and waits for its result."""
    call = waiting_call(owner, **DEFERRED)
    lifecycle.announce_tool_call(worker.claim_call())
    call.refresh_from_db()
    return call


@pytest.fixture
def unknown(declare, owner, worker):
    """Return a call that was lost with its worker, and whose tool asks what became of it."""
    worker.agents, worker.tool_names = ("tested",), ("wire", "plain")
    thread = create_thread(declare(tools=[wire, plain]), owner=owner, prompt="Pay them.")
    worker.answer("", calling("wire"))
    worker.claim_call()
    lifecycle.reap(lambda holder: True)
    return ToolCall.objects.select_related("thread").get(thread=thread)
