"""`stream_thread` tells a run in chunks, each once, from any cursor, at any moment of any history."""

import asyncio
import contextlib
import random
import threading
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models.functions import Now

from durable_agents import (
    InvalidCursorError,
    ThreadNotFoundError,
    acreate_thread,
    astream_thread,
    create_thread,
    delete_thread,
    lifecycle,
    resume_thread,
    send_message,
    stop_thread,
    stream_thread,
)
from durable_agents.lifecycle import Append, StepOutcome
from durable_agents.models import Delta, Message, Role, Stream, Thread, ToolCall
from durable_agents.parts import fold, joined, text_of
from durable_agents.reading.follow_run import Follower, _position
from durable_agents.transcript import ui_messages
from tests.lifecycle.stage import Worker, calling, let_expire, outcome, tool_part
from tests.python_api.following import FaithfulHistory, begin_call
from tests.python_api.listener import Listener

pytestmark = pytest.mark.django_db
WAIT_SECONDS = 60


def truth(thread):
    """Return every answer with parts, made from rows, an open one with what is stored of it."""
    messages = ui_messages(Message.objects.shown().filter(thread=thread, role=Role.ASSISTANT))
    open_row = Stream.objects.open().filter(thread=thread).select_related("message").first()
    if open_row is not None:
        chunks = [chunk for delta in Delta.objects.after(open_row.pk, -1) for chunk in delta.chunks]
        [answer] = [message for message in messages if message["id"] == open_row.message.shown_id]
        answer["parts"] = answer["parts"] + fold(chunks)
    return [(message["id"], message["parts"]) for message in messages if message["parts"]]


@pytest.mark.parametrize("seed", range(12))
def test_every_listener_shows_what_is_stored_whenever_it_looks(seed, declare):
    """One follows all the time; one is cut off in the middle of each look and comes back with its cursor."""
    agent = declare(when_busy=("steer", "queue", "interrupt")[seed % 3], max_steps=4)
    history = FaithfulHistory(create_thread(agent, prompt="Question"), seed=seed)
    thread, chance = history.thread, random.Random(seed)
    follower, following, returning = Follower(thread.pk, None), Listener(), Listener()
    for _ in range(50):
        history.go_on()
        assert following.take(follower.read()).shown() == truth(thread)
        if chance.random() < 0.5:
            continue
        news = list(Follower(thread.pk, returning.cursor and _position(returning.cursor)).read())
        returning.take(news[: chance.randint(0, len(news))])
    history.come_to_rest()
    following.take(follower.read())
    returning.take(stream_thread(thread, returning.cursor))
    assert following.shown() == truth(thread)
    assert following.status == returning.status == Thread.objects.get(pk=thread.pk).status
    assert returning.shown() == following.shown()[-len(returning.shown()) :] != []


def news_of(thread, cursor=None):
    """Return what one look finds, with a cursor or from the latest answer."""
    return list(Follower(thread.pk, cursor and _position(cursor)).read())


def chunks_of(thread, cursor=None):
    """Return the chunks of one look, neighbouring texts joined."""
    return joined(chunk for _, chunk in news_of(thread, cursor))


def kinds_of(thread, cursor=None):
    """Return the types of the chunks of one look, neighbouring texts joined."""
    return [chunk["type"] for chunk in chunks_of(thread, cursor)]


def rich_run(thread, worker):
    """Let a run happen in which the model speaks, calls two tools and speaks again; yield after each change."""
    claim, calls = worker.claim_step(), [calling(), calling("nonsense", error="There is no such tool.")]
    for text in ("Let ", "me ", "see."):
        worker.say(claim, text)
        yield
    end = {"type": "text-end", "id": "t"}
    lifecycle.append_deltas([Append(claim=claim, seq=3, chunks=[end])])
    worker.said[claim.row_id] = 4
    for call in calls:
        begin_call(worker, claim, call)
        yield
    worker.answer("Let me see.", *calls, claim=claim)
    yield
    worker.settle({"found": 1})
    yield
    claim = worker.claim_step()
    worker.say(claim, "Fou", "nd")
    yield
    worker.answer("Found.", claim=claim)
    yield


WHOLE = [
    *("start", "start-step", "text-start", "text-delta", "text-end", "tool-input-start", "tool-input-start"),
    *("tool-input-available", "tool-input-available", "tool-output-error", "tool-output-available", "finish-step"),
    *("start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"),
]


def test_a_run_is_told_as_a_ui_message_stream(thread, worker):
    """Afterwards as a whole, as it would have been told while it went on."""
    for _ in rich_run(thread, worker):
        pass
    answer = Message.objects.get(thread=thread, role=Role.ASSISTANT)
    chunks = chunks_of(thread)
    assert [chunk["type"] for chunk in chunks] == WHOLE
    assert chunks[0] == {"type": "start", "messageId": answer.shown_id}
    assert chunks[-1] == {"type": "finish", "finishReason": "stop"}
    assert [chunk["delta"] for chunk in chunks if "delta" in chunk] == ["Let me see.", "Found."]


def test_every_cursor_goes_on_right_after_its_chunk(thread, worker):
    """From every chunk that was ever told, at every later moment: nothing twice, nothing missing."""
    told, cut = [], []
    follower = Follower(thread.pk, None)
    for _ in rich_run(thread, worker):
        told += follower.read()
        cut += [told[:count] for count in range(1, len(told) + 1)]
    whole = chunks_of(thread)
    assert joined(chunk for _, chunk in told) == whole
    for before in cut:
        rest = [chunk for _, chunk in news_of(thread, before[-1][0])]
        assert joined([*(chunk for _, chunk in before), *rest]) == whole


def test_a_text_that_was_told_in_part_goes_on_when_its_deltas_are_gone(thread, worker):
    """They are pruned once the step is committed; the cursor counts what was said."""
    claim = worker.claim_step()
    worker.say(claim, "Hel", "lo")
    *_, (cursor, chunk) = news_of(thread)
    assert chunk["delta"] == "lo"
    worker.answer("Hello, you.", claim=claim)
    Delta.objects.all().delete()
    rest = [chunk for _, chunk in news_of(thread, cursor)]
    assert [chunk["type"] for chunk in rest] == ["text-delta", "text-end", "finish-step", "finish"]
    assert rest[0]["delta"] == ", you."
    assert rest[0]["id"] == chunk["id"]


def test_a_superseded_attempt_is_taken_back(thread, worker):
    """Then the next one begins the step anew."""
    claim = worker.claim_step()
    worker.say(claim, "half")
    *_, (cursor, _) = news_of(thread)
    let_expire(claim)
    lifecycle.reap(lambda _: False)
    worker.say(worker.claim_step(), "whole")
    assert kinds_of(thread, cursor) == ["reset-step", "start-step", "text-start", "text-delta"]
    assert kinds_of(thread) == ["start", "start-step", "text-start", "text-delta"]


def test_a_stopped_answer_keeps_its_text_and_ends_with_abort(thread, worker):
    """Nothing is told twice."""
    worker.say(worker.claim_step(), "half")
    *_, (cursor, _) = news_of(thread)
    stop_thread(thread)
    assert kinds_of(thread, cursor) == ["text-end", "finish-step", "abort"]


def test_a_call_that_a_stop_has_undone_is_taken_back_with_its_step(thread, worker):
    """It was begun and never made: the text that stays is told anew."""
    claim = worker.claim_step()
    worker.say(claim, "half")
    begin_call(worker, claim, calling())
    listener = Listener().take(news_of(thread))
    stop_thread(thread)
    listener.take(news_of(thread, listener.cursor))
    assert [chunk["type"] for chunk in chunks_of(thread)][-1] == "abort"
    assert listener.shown() == truth(thread)
    assert text_of(listener.shown()[0][1]) == "half"


def test_a_failed_run_ends_with_an_error_for_end_users(thread, worker):
    """What the provider said stays with the admin."""
    worker.fail(worker.claim_step())
    assert [chunk["type"] for chunk in chunks_of(thread)] == ["start", "error"]
    assert chunks_of(thread)[-1]["errorText"] == "The model's credentials are not accepted."


def test_a_resumed_run_goes_on_in_the_same_message(thread, worker):
    """Who has seen it fail is told of the next attempt, and of its end."""
    worker.fail(worker.claim_step())
    *_, (cursor, _) = news_of(thread)
    assert kinds_of(thread, cursor) == []
    resume_thread(thread)
    worker.answer()
    assert kinds_of(thread, cursor) == ["start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"]
    resume_thread(thread, "Again")
    worker.fail(worker.claim_step())
    assert kinds_of(thread, cursor)[-2:] == ["start", "error"]


def test_questions_and_progress_are_told(thread, worker):
    """A call that waits for a person, and one that says how far it is."""
    worker.answer("", calling(), calling())
    first, second = ToolCall.objects.filter(thread=thread).order_by("rev")
    rows = ToolCall.objects.filter(thread=thread)
    rows.filter(pk=first.pk).update(status="approval_requested")
    rows.filter(pk=second.pk).update(progress={"percent": 50})
    assert chunks_of(thread)[-2:] == [
        {"type": "tool-approval-request", "toolCallId": first.tool_call_id, "approvalId": first.tool_call_id},
        {
            "type": "tool-output-available",
            "toolCallId": second.tool_call_id,
            "output": {"percent": 50},
            "preliminary": True,
        },
    ]
    rows.filter(pk=first.pk).update(status="denied")
    assert {"type": "tool-output-denied", "toolCallId": first.tool_call_id} in chunks_of(thread)


def test_reasoning_keeps_what_its_provider_signed(thread, worker):
    """As the AI SDK has it, at the end of the part."""
    signed = {"anthropic": {"signature": "s"}}
    parts = [{"type": "step-start"}, {"type": "reasoning", "text": "", "state": "done", "providerMetadata": signed}]
    step = StepOutcome(parts=parts, calls=[], finish_reason="stop", model="m", usage=None)
    lifecycle.commit_step(worker.claim_step(), step)
    chunks = chunks_of(thread)[2:4]
    assert [chunk["type"] for chunk in chunks] == ["reasoning-start", "reasoning-end"]
    assert chunks[1] == {"type": "reasoning-end", "id": chunks[0]["id"], "providerMetadata": signed}


def test_arguments_are_told_as_they_come(thread, worker):
    """Their fragments are not kept; whoever comes later gets the whole."""
    claim, call = worker.claim_step(), calling()
    worker.say(claim, "So")
    begin_call(worker, claim, call)
    fragments = [{"type": "tool-input-delta", "toolCallId": call.tool_call_id, "inputTextDelta": x} for x in "ab"]
    lifecycle.append_deltas([Append(claim=claim, seq=2, chunks=fragments)])
    told = news_of(thread)
    assert [chunk for _, chunk in told[-2:]] == fragments
    assert news_of(thread, told[-2][0])[0][1] == fragments[1]
    step = outcome("So", call)
    lifecycle.commit_step(claim, step)
    assert tool_part(call) in step.parts
    assert kinds_of(thread, told[-2][0]) == ["tool-input-available"]


def test_a_thread_without_an_answer_has_nothing_to_tell(agent):
    """It is at rest, and the stream ends at once."""
    assert list(stream_thread(create_thread(agent))) == []


def test_without_a_cursor_it_begins_with_the_latest_answer(thread, worker):
    """Not with what was said in earlier runs."""
    worker.answer("First.")
    send_message(thread, "More")
    worker.answer("Second.")
    assert "".join(chunk.get("delta", "") for _, chunk in stream_thread(thread)) == "Second."


def test_a_cursor_of_an_earlier_run_tells_all_that_came_since(thread, worker):
    """Message after message."""
    worker.answer("First.")
    *_, (cursor, _) = stream_thread(thread)
    for text in ("Second.", "Third."):
        send_message(thread, "More")
        worker.answer(text)
    told = list(stream_thread(thread, cursor))
    assert [chunk["delta"] for _, chunk in told if "delta" in chunk] == ["Second.", "Third."]
    assert [chunk["type"] for _, chunk in told].count("start") == 2


def test_an_answer_that_was_replaced_is_not_told_to_whoever_comes_later(thread, worker):
    """Edited or regenerated away: it is not shown anywhere else either."""
    worker.answer("First.")
    *_, (cursor, _) = stream_thread(thread)
    for text in ("Second.", "Third."):
        send_message(thread, "More")
        worker.answer(text)
    replaced = Message.objects.filter(thread=thread, role=Role.ASSISTANT).order_by("position")[1]
    Message.objects.filter(pk=replaced.pk).update(superseded_at=Now())
    assert [chunk["delta"] for _, chunk in stream_thread(thread, cursor) if "delta" in chunk] == ["Third."]


def test_a_late_result_of_an_earlier_answer_is_not_told_in_a_later_one(thread, worker):
    """There is no such call in the message that the chunks build."""
    worker.answer("", calling())
    worker.settle()
    worker.answer("First.")
    send_message(thread, "More")
    claim = worker.claim_step()
    worker.say(claim, "Sec")
    *_, (cursor, _) = news_of(thread)
    worker.answer("Second.", claim=claim)
    row = Thread.objects.get(pk=thread.pk)
    ToolCall.objects.filter(thread=thread).update(rev=row.rev)
    assert kinds_of(thread, cursor) == ["text-delta", "text-end", "finish-step", "finish"]


@pytest.mark.parametrize("cursor", ["", "x", "1.2.3", "1.1.1.1.9.", "-1.0.0.0.0.", "99999999.0.0.0.0.", "²" * 3])
def test_what_is_no_cursor_is_refused(thread, cursor):
    """With an error of the caller's kind."""
    with pytest.raises(InvalidCursorError, match="Start again"):
        next(stream_thread(thread, cursor))


def test_the_cursor_of_another_thread_is_refused(thread, agent, worker):
    """It would skip what nobody has seen."""
    worker.answer()
    *_, (cursor, _) = stream_thread(thread)
    other = create_thread(agent, prompt="Question")
    worker.answer()
    with pytest.raises(InvalidCursorError):
        next(stream_thread(other, cursor))


def test_a_thread_that_is_not_there_is_not_found(thread):
    """Neither one that never was nor one that is deleted while it is followed."""
    with pytest.raises(ThreadNotFoundError):
        next(stream_thread(uuid4()))
    with pytest.raises(ThreadNotFoundError):
        stream_thread("no id")
    follower = Follower(thread.pk, None)
    list(follower.read())
    delete_thread(thread)
    with pytest.raises(ThreadNotFoundError):
        list(follower.read())


def test_inside_a_transaction_it_tells_what_there_is_and_does_not_wait(thread, worker):
    """Nobody else sees what is not committed, so nothing more would ever come."""
    worker.say(worker.claim_step(), "Hel")
    told = stream_thread(thread)
    assert [next(told)[1]["type"] for _ in range(4)] == ["start", "start-step", "text-start", "text-delta"]
    with pytest.raises(RuntimeError, match="inside a transaction"):
        next(told)


def test_a_look_without_news_takes_three_queries(thread, worker, django_assert_num_queries):
    """However long the answer is already: thread, open stream, new deltas."""
    worker.say(worker.claim_step(), *"many words of an answer")
    follower = Follower(thread.pk, None)
    list(follower.read())
    with django_assert_num_queries(3):
        assert list(follower.read()) == []


def answer_slowly(gate):
    """Answer as a worker does, in a thread and on a connection of its own; all but the first word once the
    gate is open."""

    def work():
        with contextlib.closing(connection):
            worker = Worker()
            claim = worker.claim_step()
            worker.say(claim, "One ")
            opened = gate.wait(WAIT_SECONDS)
            for word in ("two ", "three") if opened else ():
                worker.say(claim, word)
            worker.answer("One two three." if opened else "One, and nobody heard it.", claim=claim)

    working = threading.Thread(target=work)
    working.start()
    return working


@pytest.mark.django_db(transaction=True)
def test_a_run_is_told_while_it_goes_on(agent):
    """Nothing more is said before the first word was heard."""
    thread = create_thread(agent, prompt="Count")
    gate = threading.Event()
    working = answer_slowly(gate)
    told = []
    for _, chunk in stream_thread(thread):
        told.append(chunk)
        if chunk.get("delta") == "One ":
            gate.set()
    working.join()
    assert "".join(chunk.get("delta", "") for chunk in told) == "One two three."
    assert told[-1]["type"] == "finish"


@pytest.mark.django_db(transaction=True)
async def test_a_coroutine_follows_without_holding_up_others(agent, coroutine_side):
    """Nothing more is said before the loop has turned some times, while the first word was all there was."""
    thread = await acreate_thread(agent, prompt="Count")
    gate, heard = threading.Event(), asyncio.Event()

    async def turn():
        await heard.wait()
        for _ in range(10):
            await asyncio.sleep(0.01)
        gate.set()

    turning = asyncio.create_task(turn())
    working = answer_slowly(gate)
    chunks = []
    async for _, chunk in astream_thread(thread):
        chunks.append(chunk)
        if chunk.get("delta") == "One ":
            heard.set()
    await turning
    working.join()
    assert "".join(chunk.get("delta", "") for chunk in chunks) == "One two three."
