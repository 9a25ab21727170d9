"""A scripted model gives its answers in order, notes what it was asked, and says clearly what a test got wrong."""

import asyncio

import pytest
from django.test import TestCase

from durable_agents import create_thread, llm
from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm import ModelUsage
from durable_agents.models import Delta, Message, Stream
from durable_agents.testing import (
    NoScriptedModelError,
    OutOfAnswersError,
    ScriptedModel,
    calls,
    does,
    ends,
    fails,
    hangs,
    run_until_idle,
    says,
    thinks,
)
from durable_agents.transcript import ui_messages
from tests.project.models import Booking
from tests.testing.shop import opened

pytestmark = pytest.mark.django_db


def run(*answers, prompt="Hello?", agent="shop", **options):
    """Run a thread on these answers; return it and the model."""
    with ScriptedModel(*answers, **options) as model:
        thread = create_thread(agent, prompt=prompt)
        run_until_idle()
    thread.refresh_from_db()
    return thread, model


def parts_of(thread):
    """The parts of the thread's last message."""
    return ui_messages(Message.objects.shown().filter(thread=thread))[-1]["parts"]


def test_pieces_of_one_answer_come_in_order(shop):
    """Reasoning, text and calls of one step."""
    thread, _ = run([thinks("Hm."), says("Let me see."), calls("add", a=1, b=2), calls("add", {"a": 3, "b": 4})], "Ok.")
    parts = [(part["type"], part.get("text") or part.get("output")) for part in parts_of(thread)]
    assert parts == [
        ("step-start", None),
        ("reasoning", "Hm."),
        ("text", "Let me see."),
        ("tool-add", 3),
        ("tool-add", 7),
        ("step-start", None),
        ("text", "Ok."),
    ]


def test_requests_are_noted_as_the_model_got_them(shop):
    """Agent, model, history, tools and settings."""
    with opened(name="other", model_settings={"temperature": 0.1}):
        _, model = run("Hi.", agent="other")
    [request] = model.requests
    assert (request.agent, request.model, request.settings) == ("other", "openai/gpt-x", {"temperature": 0.1})
    assert [(m["role"], m["content"]) for m in request.messages] == [("system", "You are a shop."), ("user", "Hello?")]
    assert "add" in [tool["function"]["name"] for tool in request.tools]


def test_an_answer_may_be_a_function_of_the_request(shop):
    """Sync with the ORM, or async."""
    Booking.objects.create(name="Ada")

    async def counted(request):
        return f"{len(request.messages)} messages"

    thread, _ = run(lambda request: calls("add", a=Booking.objects.count(), b=1), counted)
    assert parts_of(thread)[-1]["text"] == "4 messages"


def test_what_fails_on_the_way_is_tried_again(shop):
    """After a part of the answer, after silence, as an error of the package's own."""
    error = ModelError(ErrorKind.NETWORK, "cut", retryable=True)
    thread, model = run([says("Half"), fails()], [says("Half"), hangs()], error, "Whole.")
    codes = ["provider_5xx", "network", "network", ""]
    assert [stream.error_code for stream in Stream.objects.filter(thread=thread)] == codes
    assert [part.get("text") for part in parts_of(thread)] == [None, "Whole."]
    assert len(model.requests) == 4


def test_what_fails_for_good_is_not_tried_again(shop):
    """By its kind, or because the test says so."""
    refused, model = run(fails("auth", "bad key"))
    assert (refused.status, refused.error_code, len(model.requests)) == ("failed", "auth", 1)
    lasting, model = run(fails("network", retryable=False))
    assert (lasting.error_code, len(model.requests)) == ("network", 1)


def test_what_was_said_before_a_moment_is_stored_by_then(shop):
    """Browsers see it while the model goes on."""
    seen = []

    def look():
        seen.append([chunk.get("delta") for delta in Delta.objects.all() for chunk in delta.chunks])

    run([says("Once upon"), does(look), says(" a time.")])
    assert "".join(filter(None, seen[0])) == "Once upon"


def test_the_end_of_an_answer_may_be_told(shop):
    """Its reason and its usage; else words are tokens."""
    thread, _ = run([says("Too lo"), ends("length", usage=ModelUsage(input_tokens=7, output_tokens=2))])
    stream = Stream.objects.get(thread=thread)
    assert (stream.finish_reason, stream.input_tokens, stream.output_tokens) == ("length", 7, 2)
    counted, _ = run("Four words it is.")
    assert (counted.input_tokens, counted.output_tokens) == (5, 4)


def test_running_out_of_answers_names_the_request(shop):
    """The error reaches the test; after more answers the run goes on."""
    with ScriptedModel(calls("add", a=20, b=22)) as model:
        thread = create_thread("shop", prompt="Hello?")
        with pytest.raises(OutOfAnswersError, match=r"request number 2, of agent 'shop'; 1 answers.*'tool': '42'"):
            run_until_idle()
        model.script("Forty-two.")
        run_until_idle()
    assert parts_of(thread)[-1]["text"] == "Forty-two."


@pytest.mark.parametrize("mistake", [lambda _: 1 / 0, does(lambda: 1 / 0)])
def test_errors_of_the_test_itself_reach_the_test(shop, mistake):
    """They do not become a failed attempt that is tried again."""
    with pytest.raises(ZeroDivisionError):
        run(mistake)


def test_what_is_no_answer_is_refused(shop):
    """With what would be one."""
    with pytest.raises(TypeError, match="says, calls, fails"):
        run(42)


def test_answers_that_are_left_over_can_be_asserted(shop):
    """The message shows them."""
    _, model = run("Hello.", "Never said.")
    assert model.left == 1
    with pytest.raises(AssertionError, match=r"1 answers were not used: 'Never said\.'"):
        model.assert_done()
    _, model = run("Hello.")
    model.assert_done()


def test_models_of_given_agents_are_replaced_alone(shop):
    """Each agent asks its own script, the inner one first."""
    with opened(name="other"), ScriptedModel("I am all.") as every, ScriptedModel("I am one.", agents=["other"]) as one:
        create_thread("shop", prompt="Who?")
        create_thread("other", prompt="Who?")
        run_until_idle()
    assert [request.agent for request in every.requests] == ["shop"]
    assert [request.agent for request in one.requests] == ["other"]


def test_an_agent_without_a_script_is_not_asked_for_real(shop):
    """Unless the test asks for that: no key is used by mistake."""
    with opened(name="other"), ScriptedModel("Hi.", agents=[shop]):
        create_thread("other", prompt="Who?")
        with pytest.raises(NoScriptedModelError, match=r"'other' would call its real model.*real_models=True"):
            run_until_idle()


@ScriptedModel("Hello.")
def test_a_decorated_test_has_its_model(shop):
    """All the test through."""
    thread = create_thread("shop", prompt="Hi.")
    run_until_idle()
    assert parts_of(thread)[-1]["text"] == "Hello."


def test_coroutines_are_decorated_and_classes_are_not():
    """A class would not have its model in its tests."""
    real = llm.door()

    @ScriptedModel("Hello.")
    async def inside():
        await asyncio.sleep(0)
        return llm.door()

    assert asyncio.run(inside()) is not real
    with pytest.raises(TypeError, match="not a class"):
        ScriptedModel("Hello.")(TestCase)


def test_a_script_begins_anew_with_each_block_and_is_in_place_once():
    """So a decorator may stand before several tests."""
    model, real = ScriptedModel("Hello."), llm.door()
    with model:
        assert llm.door() is not real
        with pytest.raises(RuntimeError, match="already in use"), model:
            pass
        assert model.left == 1
    assert llm.door() is real
