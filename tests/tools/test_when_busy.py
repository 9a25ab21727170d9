"""A message that comes while a run is on: every way of ``when_busy`` in every situation."""

from collections.abc import Callable

import pytest

from durable_agents import Agent, Retry, create_thread, lifecycle, send_message, stop_thread, tool
from durable_agents.agents import registry
from durable_agents.exceptions import ThreadBusyError
from durable_agents.lifecycle import CallResult, add_tool_result, approve_tool_call
from durable_agents.models import Message, Stream, Thread, ToolCall
from durable_agents.testing import ScriptedModel, run_until_idle
from durable_agents.transcript import turns
from tests.lifecycle.stage import Worker, calling, make_due
from tests.tools.outcomes import shown

pytestmark = pytest.mark.django_db
WAYS = ("steer", "queue", "interrupt", "reject")


@pytest.fixture(params=WAYS)
def way(request):
    """Return one way after the other."""
    return request.param


@pytest.fixture
def agent(way):
    """Return an agent that takes messages this way."""

    @tool
    def plain(word: str = "") -> str:
        """Say a word."""
        return word

    @tool(kind="deferred")
    def later(word: str = "") -> None:
        """Say a word later."""

    @tool(kind="client")
    def browser(word: str = "") -> str:
        """Say a word in the browser."""

    made = Agent("tested", model="openai/x", tools=[plain, later, browser], when_busy=way, retry=Retry(max_attempts=3))
    yield made
    registry.remove("tested")


@pytest.fixture
def worker():
    """Return a worker that knows these tools."""
    return Worker(tool_names=("plain", "later", "browser"))


def streaming(thread: Thread, worker: Worker) -> None:
    """The model is answering."""
    worker.say(worker.claim_step(), "Well")


def due(thread: Thread, worker: Worker) -> None:
    """No worker has come yet."""


def backoff(thread: Thread, worker: Worker) -> None:
    """The model call failed and is tried again in a minute."""
    worker.retry(worker.claim_step())


def tool_running(thread: Thread, worker: Worker) -> None:
    """A worker runs a tool."""
    worker.answer("Let me see.", calling("plain"))
    worker.claim_call()


def tool_in_backoff(thread: Thread, worker: Worker) -> None:
    """A tool failed and is tried again in a minute."""
    worker.answer("Let me see.", calling("plain"))
    lifecycle.retry_tool_call(worker.claim_call(), delay_seconds=60, detail="")


def approval_open(thread: Thread, worker: Worker) -> None:
    """A person is asked."""
    worker.answer("May I?", of_kind("plain", needs_approval=True))


def client_call_open(thread: Thread, worker: Worker) -> None:
    """The browser is asked."""
    worker.answer("Choose.", of_kind("browser", kind="client", answered_by="owner"))


def deferred_open(thread: Thread, worker: Worker) -> None:
    """A service works on it."""
    worker.answer("I ask.", of_kind("later", kind="deferred"))
    lifecycle.announce_tool_call(worker.claim_call())


def stopped(thread: Thread, worker: Worker) -> None:
    """A person has stopped the run a moment ago; the worker does not know yet."""
    worker.say(worker.claim_step(), "Well")
    stop_thread(thread)


def of_kind(name: str, **facts: object):
    """A call of a tool as the engine hands it over."""
    made = calling(name)
    return type(made)(**{**{key: getattr(made, key) for key in made.__dataclass_fields__}, **facts})


SITUATIONS: list[Callable[[Thread, Worker], None]] = [
    streaming,
    due,
    backoff,
    tool_running,
    tool_in_backoff,
    approval_open,
    client_call_open,
    deferred_open,
    stopped,
]


def only(*situations: Callable[[Thread, Worker], None]) -> pytest.MarkDecorator:
    """Run a test in these situations only."""
    return pytest.mark.parametrize("situation", situations, ids=lambda one: one.__name__, indirect=True)


@pytest.fixture(params=SITUATIONS, ids=lambda situation: situation.__name__)
def situation(request):
    """Return one situation after the other."""
    return request.param


@pytest.fixture
def thread(agent, worker, situation):
    """Return a thread in this situation."""
    made = create_thread(agent, prompt="One")
    situation(made, worker)
    return made


def finish(thread: Thread) -> None:
    """Let whatever is open come to its end, and everything be answered."""
    for stream in Stream.objects.held().filter(thread=thread):
        lifecycle.release(claim_of(stream, "stream"))
    for call in ToolCall.objects.held().filter(thread=thread):
        lifecycle.finish_tool_call(claim_of(call, "tool"), CallResult(result="done"))
    make_due(thread)
    with ScriptedModel(*[lambda request: f"Answer to {asked(request)}"] * 10):
        run_until_idle()
        for call in ToolCall.objects.open().filter(thread=thread):
            if call.status == "approval_requested":
                approve_tool_call(thread, call.tool_call_id, by=None)
            else:
                add_tool_result(thread, call.tool_call_id, "late")
        run_until_idle()


def asked(request) -> str:
    """What the model is asked: the last thing that the user said."""
    return next(message["content"] for message in reversed(request.messages) if message["role"] == "user")


def claim_of(row, kind):
    """The claim that its holder has."""
    facts = {"row_id": row.pk, "thread_id": row.thread_id, "fence": row.fence, "attempt": row.attempt, "crashes": 0}
    return lifecycle.Claim(kind=kind, agent="tested", **facts)


def test_nothing_is_lost_and_nothing_is_answered_twice(thread, worker, way, situation):
    """Each message stands once, in its order, in a history that is valid whenever the model is asked."""
    is_running = Thread.objects.get(pk=thread.pk).is_running
    if way == "reject" and is_running:
        with pytest.raises(ThreadBusyError):
            send_message(thread, "Two")
        return
    send_message(thread, "Two", client_id="m2")
    if way != "reject":
        send_message(thread, "Three", client_id="m3")
    finish(thread)
    said = [text for role, text in shown(thread) if role == "user"]
    assert said == ["One", "Two", "Three"][: 2 if way == "reject" else 3]
    thread.refresh_from_db()
    assert thread.status == "completed"
    assert not Stream.objects.open().filter(thread=thread).exists()
    assert not ToolCall.objects.open().filter(thread=thread).exists()
    assert len({message.position for message in Message.objects.shown().filter(thread=thread)}) == len(shown(thread))
    for turn in turns(thread.pk):
        assert all(
            call.status not in {"pending", "running", "approval_requested"} for s in turn.steps for call in s.calls
        )


@pytest.mark.parametrize("way", ["queue"], indirect=True)
@only(*[situation for situation in SITUATIONS if situation is not stopped])
def test_each_queued_message_has_an_answer_of_its_own(thread):
    """In order, after the run that was on."""
    send_message(thread, "Two")
    send_message(thread, "Three")
    assert [m.position for m in Message.objects.shown().filter(thread=thread, role="user")][1:] == [None, None]
    finish(thread)
    answers = [text for role, text in shown(thread) if role == "assistant"]
    assert answers[-2:] == ["Answer to Two", "Answer to Three"]


@pytest.mark.parametrize("way", ["interrupt"], indirect=True)
def test_an_interrupted_run_is_over_and_the_new_one_begins(thread):
    """At once, in the same transaction."""
    send_message(thread, "Two")
    assert not ToolCall.objects.open().filter(thread=thread).exists()
    new = Stream.objects.open().get(thread=thread)
    assert new.answer.parent is not None
    assert new.answer.parent.text == "Two"


@pytest.mark.parametrize("way", ["steer"], indirect=True)
@only(approval_open, client_call_open, deferred_open)
def test_a_message_goes_before_a_person_a_browser_or_a_service_that_is_awaited(thread, situation):
    """Questions are taken back, what a service was told goes on, and its result comes as news of its own."""
    send_message(thread, "Two")
    call = ToolCall.objects.get(thread=thread)
    if situation is not deferred_open:
        assert (call.status, call.error_code) == ("cancelled", "superseded")
        finish(thread)
        return
    assert (call.status, call.passed_at is None) == ("pending", False)
    with ScriptedModel("Answer to Two", "So it is.") as model:
        run_until_idle()
        told = [m["content"] for m in model.requests[0].messages if m["role"] == "tool"]
        assert told == ["The call is still running. Its result will come in a later message."]
        thread.refresh_from_db()
        assert thread.status == "awaiting_tool_results"
        add_tool_result(thread, call.tool_call_id, {"count": 3})
        run_until_idle()
        assert '{"count": 3}' in asked(model.requests[1])
    assert [text for role, text in shown(thread) if role == "assistant"] == ["I ask.", "Answer to Two", "So it is."]
    thread.refresh_from_db()
    assert thread.status == "completed"


@pytest.mark.parametrize("way", ["steer"], indirect=True)
@only(tool_running)
def test_a_message_waits_for_tools_that_a_worker_runs(thread):
    """They end first; then the model sees their results and the message."""
    send_message(thread, "Two")
    assert not Stream.objects.open().filter(thread=thread).exists()
    finish(thread)
    assert [text for role, text in shown(thread) if role == "assistant"] == ["Let me see.", "Answer to Two"]
