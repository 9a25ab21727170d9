"""Signals are sent once for each change, after its commit, and what listens breaks nothing."""

import logging
from contextlib import ExitStack

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from durable_agents import (
    Retry,
    create_thread,
    message_committed,
    resume_thread,
    send_message,
    step_finished,
    stop_thread,
    thread_status_changed,
    tool_call_finished,
)
from durable_agents.lifecycle import NewCall
from durable_agents.models import Message, Stream, Thread, ToolCall
from durable_agents.testing import ScriptedModel, calls, does, fails, run_until_idle, says
from tests.lifecycle.stage import Worker

pytestmark = pytest.mark.django_db

SIGNALS = {
    "thread_status_changed": (thread_status_changed, Thread),
    "message_committed": (message_committed, Message),
    "step_finished": (step_finished, Stream),
    "tool_call_finished": (tool_call_finished, ToolCall),
}


@pytest.fixture
def heard():
    """Return what was sent, each with its name, from now on."""
    found = []
    with ExitStack() as stack:
        for name in SIGNALS:
            stack.enter_context(listening(name, lambda *, _name=name, **facts: found.append((_name, facts))))
        yield found


class listening:  # noqa: N801 - reads as a block
    """A block in which a function receives a signal."""

    def __init__(self, name, function):
        self.signal, self.sender = SIGNALS[name]
        self.function = lambda signal, sender, **facts: function(**facts)

    def __enter__(self):
        self.signal.connect(self.function, sender=self.sender)

    def __exit__(self, *_):
        self.signal.disconnect(self.function, sender=self.sender)


def of(heard, name):
    """Return the facts of one signal, in order."""
    return [facts for found, facts in heard if found == name]


def test_a_run_sends_each_of_its_changes_once(shop, heard):
    """With ids, statuses and what a step has used."""
    shop(retry=Retry(max_attempts=2))
    with ScriptedModel([says("Let me add."), calls("add", a=1, b=1), calls("nothing")], fails("network"), "Two."):
        thread = create_thread("shop", prompt="Add.")
        run_until_idle()
    assert [(facts["previous_status"], facts["status"]) for facts in of(heard, "thread_status_changed")] == [
        ("streaming", "awaiting_tool_results"),
        ("awaiting_tool_results", "streaming"),
        ("streaming", "completed"),
    ]
    answer = Message.objects.get(thread=thread, role="assistant")
    assert of(heard, "message_committed") == [{"thread_id": thread.pk, "message_id": answer.pk}]
    steps = of(heard, "step_finished")
    finished = Stream.objects.filter(thread=thread, state="finished").order_by("number")
    assert [facts["stream_id"] for facts in steps] == [stream.pk for stream in finished]
    assert [facts["usage"]["output_tokens"] for facts in steps] == [stream.output_tokens for stream in finished]
    ended = {facts["tool_call_id"]: facts["status"] for facts in of(heard, "tool_call_finished")}
    assert len(of(heard, "tool_call_finished")) == 2
    assert ended == dict(ToolCall.objects.filter(thread=thread).values_list("tool_call_id", "status"))
    assert sorted(ended.values()) == ["completed", "failed"]


@pytest.mark.django_db(transaction=True)
class TestCommits:
    """What a web process draws itself."""

    @pytest.fixture(autouse=True)
    def _silent(self, bells):
        """Send no notifications."""

    def test_nothing_is_sent_before_the_commit_and_nothing_after_a_rollback(self, shop, heard):
        """Not for the status, the message, the step or the call."""
        shop()
        worker = Worker(agents=["shop"])
        with transaction.atomic():
            thread = create_thread("shop", prompt="Add.")
            worker.answer("", _invalid_call())
            assert heard == []
            transaction.set_rollback(True)
        assert heard == []
        with transaction.atomic():
            thread = create_thread("shop", prompt="Add.")
            worker.answer("", _invalid_call())
        question = Message.objects.get(thread=thread, role="user")
        assert [name for name, _ in heard] == [
            "message_committed",
            "thread_status_changed",
            "tool_call_finished",
            "step_finished",
        ]
        assert heard[0][1] == {"thread_id": thread.pk, "message_id": question.pk}

    @pytest.mark.parametrize("name", list(SIGNALS))
    def test_a_receiver_that_raises_reaches_nobody(self, shop, caplog, name):
        """Not the caller, not the other receivers; it is logged once with its traceback."""
        shop()
        heard = []

        def broken(**facts):
            raise KeyError

        caplog.set_level(logging.ERROR, logger="durable_agents")
        with listening(name, broken), listening(name, lambda **facts: heard.append(facts)):
            thread = create_thread("shop", prompt="Add.")
            Worker(agents=["shop"]).answer("", _invalid_call())
        thread.refresh_from_db()
        assert (thread.status, len(heard)) == ("streaming", 1)
        [record] = [record for record in caplog.records if record.name == "durable_agents" and record.levelno >= 40]
        assert (record.action, record.exc_info[0]) == ("signal", KeyError)


def _invalid_call():
    """Return a call that is settled at once."""
    return NewCall(tool_call_id="call_1", provider_call_id="", tool_name="add", arguments={}, error="Wrong.")


def test_an_async_receiver_is_called_too(shop):
    """As Django does it."""
    heard = []

    async def receive(**facts):
        heard.append(facts["status"])

    shop()
    thread_status_changed.connect(receive)
    try:
        with ScriptedModel("Hi."):
            create_thread("shop", prompt="Hello.")
            run_until_idle()
    finally:
        thread_status_changed.disconnect(receive)
    assert heard == ["completed"]


def test_a_stopped_answer_is_told_of_and_again_when_it_went_on(shop, heard):
    """What was kept of it is whole; a resume makes more of it."""
    shop()
    with ScriptedModel([says("Well, "), does(lambda: stop_thread(Thread.objects.get()))], "indeed."):
        thread = create_thread("shop", prompt="Hello.")
        run_until_idle()
        resume_thread(thread)
        run_until_idle()
    answer = Message.objects.get(thread=thread, role="assistant", superseded_at=None)
    assert [facts["message_id"] for facts in of(heard, "message_committed")] == [answer.pk, answer.pk]


def test_an_answer_that_says_nothing_is_none(shop, heard):
    """A run that failed before its first word."""
    shop()
    with ScriptedModel(fails("auth")):
        create_thread("shop", prompt="Hello.")
        run_until_idle()
    assert of(heard, "message_committed") == []


def test_an_answer_that_a_message_ends_is_told_of(shop, heard):
    """The user spoke while the tools ran: a new answer begins."""
    shop()
    answers = [calls("add", a=1, b=1), does(lambda: send_message(Thread.objects.get(), "And three?"))]
    with ScriptedModel([says("Let me add."), *answers], "Two, and six."):
        thread = create_thread("shop", prompt="Add.")
        run_until_idle()
    said = list(Message.objects.filter(thread=thread, role="assistant").order_by("position"))
    steered = Message.objects.get(thread=thread, text="And three?")
    told = [facts["message_id"] for facts in of(heard, "message_committed")]
    assert told == [steered.pk, *(message.pk for message in said)]
    assert len(said) == 2


def test_an_open_call_that_a_stop_cancels_is_finished(shop, heard, django_capture_on_commit_callbacks):
    """Whoever waited for it can stop waiting."""
    shop()
    with ScriptedModel(calls("ask_the_warehouse", sku="x")):
        thread = create_thread("shop", prompt="Ask.")
        run_until_idle()
    with django_capture_on_commit_callbacks(execute=True):
        stop_thread(thread)
    assert [facts["status"] for facts in of(heard, "tool_call_finished")] == ["cancelled"]


def test_where_nobody_listens_nothing_is_asked(shop):
    """No statement more than without signals."""
    shop()
    counts = []
    for listens in (False, True):
        thread = create_thread("shop", prompt="Hello.")
        worker = Worker(agents=["shop"])
        claim = worker.claim_step()
        with ExitStack() as stack:
            if listens:
                stack.enter_context(listening("message_committed", lambda **facts: None))
            with CaptureQueriesContext(connection) as queries:
                worker.answer("Hi.", claim=claim)
        counts.append(len(queries))
        assert Thread.objects.get(pk=thread.pk).status == "completed"
    assert counts[0] == counts[1] - 2
