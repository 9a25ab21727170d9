"""What a model thought is kept with its signature, shown to clients, and sent back to its provider and to nobody else.

Each test plays a worker: it claims the step, calls a real server, and commits what it answered.
"""

from dataclasses import dataclass

import pytest

from durable_agents import create_thread, lifecycle
from durable_agents.engine.step_from_events import Answer
from durable_agents.llm import openai_messages
from durable_agents.models import Message, Stream, ToolCall
from durable_agents.parts import fold
from durable_agents.transcript import step_parts, turns, ui_messages
from tests.llm.wire import anthropic, call, call_block, event, gemini, hidden_block, text_block, thinking_block, whole
from tests.servers.model import Reply

CLAUDE = "anthropic/claude-sonnet-4-5"
GEMINI = "gemini/gemini-3-pro-preview"
THINKS = {"thinking": {"type": "enabled", "budget_tokens": 2000}}
TOOL = {"type": "function", "function": {"name": "plain", "description": "", "parameters": {"type": "object"}}}

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bells")]


@dataclass
class Run:
    """One thread, its worker and the server that its model calls go to."""

    thread: object
    worker: object
    agent: object
    server: object
    ask: object
    settings: dict

    def step(self, answer, *, model, **settings):
        """Run the due step against the server; return the request that it sent and the chunks for browsers."""
        claim = self.worker.claim_step()
        self.server.answer_with(answer)
        messages = openai_messages("", turns(self.thread.pk), max_result_bytes=1000, model=model)
        folded = Answer(number=Stream.objects.get(pk=claim.row_id).number, tool_input_deltas=True)
        events = self.ask(model=model, messages=messages, tools=[TOOL], settings={**self.settings, **settings})
        chunks = [chunk for said in events for chunk in folded.take(said)]
        lifecycle.commit_step(claim, folded.outcome(self.agent.tools))
        return self.server.requests[-1], chunks

    def settle(self):
        """Let the due tool calls have their results."""
        for claim in self.worker.claim(streams=0):
            self.worker.settle("sunny", claim=claim)

    def shown(self):
        """Return the parts of the answer as clients see them."""
        return ui_messages(Message.objects.filter(thread=self.thread, role="assistant"))[-1]["parts"]


@pytest.fixture
def run_of(agent, worker, server, ask, at_root):
    """Return a thread whose first step is due."""
    return Run(create_thread(agent, prompt="Weather?"), worker, agent, server, ask, at_root)


def said_back(request):
    """Return the content of the last message of the model's own in a request to Anthropic."""
    return [message["content"] for message in request["messages"] if message["role"] == "assistant"][-1]


CALLING = call_block('{"word": ', '"x"}', call_id="toolu_1", name="plain")
USED = {"type": "tool_use", "id": "toolu_1", "name": "plain", "input": {"word": "x"}}


def test_signed_thoughts_go_back_before_the_call_that_they_led_to(run_of):
    """Verbatim: Anthropic checks the signature."""
    thoughts = thinking_block("I should ", "look.\n", signature="c2lnbmVk")
    run_of.step(anthropic(thoughts, CALLING, reason="tool_use"), model=CLAUDE, **THINKS)
    run_of.settle()
    request, _ = run_of.step(anthropic(text_block("Sunny.")), model=CLAUDE, **THINKS)
    assert said_back(request) == [
        {"type": "thinking", "thinking": "I should look.\n", "signature": "c2lnbmVk"},
        USED,
    ]
    assert request["thinking"] == THINKS["thinking"]
    assert request["messages"][-1]["content"][0]["tool_use_id"] == "toolu_1"


def test_clients_see_the_signature_where_the_ai_sdk_has_it(run_of):
    """In the stream, in the committed step and in the message."""
    answer = anthropic(thinking_block("Look.", signature="c2ln"), hidden_block("aGlk"), CALLING, reason="tool_use")
    _, chunks = run_of.step(answer, model=CLAUDE, **THINKS)
    signed = {"type": "reasoning", "text": "Look.", "state": "done"}
    signed["providerMetadata"] = {"anthropic": {"signature": "c2ln"}}
    hidden = {"type": "reasoning", "text": "", "state": "done"}
    hidden["providerMetadata"] = {"anthropic": {"redactedData": "aGlk"}}
    ended = [chunk for chunk in chunks if chunk["type"] == "reasoning-end"]
    assert [chunk["providerMetadata"] for chunk in ended] == [part["providerMetadata"] for part in (signed, hidden)]
    assert fold(chunks)[1:3] == [signed, hidden]
    assert Stream.objects.get().parts[1:3] == step_parts(Stream.objects.get(), ToolCall.objects.all())[1:3]
    assert Stream.objects.get().parts[1:3] == [signed, hidden]
    assert run_of.shown()[1:3] == [signed, hidden]


def test_hidden_thoughts_and_such_without_a_text_go_back_in_order(run_of):
    """A provider may show none of it, and wants all of it."""
    answer = anthropic(
        thinking_block(signature="Zmlyc3Q="),
        hidden_block("aGlk"),
        thinking_block("Look.", signature="dGhpcmQ="),
        text_block("One moment. "),
        CALLING,
        reason="tool_use",
    )
    run_of.step(answer, model=CLAUDE, **THINKS)
    run_of.settle()
    request, _ = run_of.step(anthropic(text_block("Sunny.")), model=CLAUDE, **THINKS)
    assert said_back(request) == [
        {"type": "thinking", "thinking": "", "signature": "Zmlyc3Q="},
        {"type": "redacted_thinking", "data": "aGlk"},
        {"type": "thinking", "thinking": "Look.", "signature": "dGhpcmQ="},
        {"type": "text", "text": "One moment. "},
        USED,
    ]


def test_thoughts_between_texts_keep_their_place(run_of):
    """A block that has moved is a block that was changed."""
    answer = anthropic(
        thinking_block("First.", signature="b25l"),
        text_block("One moment."),
        thinking_block("Then.", signature="dHdv"),
        CALLING,
        reason="tool_use",
    )
    run_of.step(answer, model=CLAUDE, **THINKS)
    run_of.settle()
    request, _ = run_of.step(anthropic(text_block("Sunny.")), model=CLAUDE, **THINKS)
    assert [block["type"] for block in said_back(request)] == ["thinking", "text", "thinking", "tool_use"]


def test_another_provider_gets_neither_thoughts_nor_ids(run_of):
    """Nobody else can read them, and some refuse them."""
    run_of.step(anthropic(thinking_block("Look.", signature="c2ln"), CALLING, reason="tool_use"), model=CLAUDE)
    run_of.settle()
    request, _ = run_of.step(Reply(text="Sunny.", delay_seconds=0), model="openai/gpt-4o")
    _, message, result = request["messages"]
    assert set(message) == {"role", "tool_calls"}
    assert message["tool_calls"][0]["id"] == result["tool_call_id"] != "toolu_1"
    assert "c2ln" not in str(request)
    assert "Look." not in str(request)


@pytest.mark.parametrize("settings", [THINKS, {"reasoning_effort": "low"}], ids=["thinking", "effort"])
def test_claude_goes_on_without_thinking_where_another_model_has_called(run_of, settings):
    """It refuses to think between calls that it has not thought before; in the next run it thinks again."""
    run_of.step(whole(call(id="call_1", name="plain", arguments="{}")), model="openai/x")
    run_of.settle()
    request, _ = run_of.step(anthropic(text_block("Sunny.")), model=CLAUDE, **settings)
    assert "thinking" not in request
    lifecycle.send_message(run_of.thread, prompt="And now?")
    request, _ = run_of.step(anthropic(text_block("Rain.")), model=CLAUDE, **settings)
    assert request["thinking"]["type"] == "enabled"


@pytest.mark.parametrize("settings", [{"thinking": {"type": "adaptive"}}, {"reasoning_effort": "low"}])
def test_a_claude_that_thinks_as_it_likes_may_call_without_a_thought(run_of, settings):
    """Nothing is refused then, and it goes on thinking."""
    model = "anthropic/claude-opus-4-7"
    run_of.step(anthropic(CALLING, reason="tool_use"), model=model, **settings)
    run_of.settle()
    request, _ = run_of.step(anthropic(text_block("Sunny.")), model=model, **settings)
    assert request["thinking"]["type"] == "adaptive"


def test_thoughts_of_claude_are_left_out_where_it_may_not_think(run_of):
    """Anthropic refuses thoughts in a request that asks for none."""
    run_of.step(
        anthropic(thinking_block("Look.", signature="c2ln"), CALLING, reason="tool_use"), model=CLAUDE, **THINKS
    )
    run_of.settle()
    run_of.step(whole(call(id="call_1", name="plain", arguments="{}")), model="openai/x")
    run_of.settle()
    request, _ = run_of.step(anthropic(text_block("Sunny.")), model=CLAUDE, **THINKS)
    assert "thinking" not in request
    assert {block["type"] for message in request["messages"] for block in message["content"]} == {
        "text",
        "tool_use",
        "tool_result",
    }


@pytest.mark.parametrize("model", ["deepseek/deepseek-chat", "moonshot/kimi-k2-thinking", "openai/some-server"])
def test_reasoning_that_nobody_signed_goes_back_with_its_call(run_of, model):
    """DeepSeek and Kimi refuse a history without it."""
    settings = {"api_base": run_of.server.url}
    answer = whole(
        event({"reasoning_content": "I should "}),
        event({"reasoning_content": "look."}),
        call(id="c", name="plain", arguments="{}"),
    )
    run_of.step(answer, model=model, **settings)
    run_of.settle()
    request, _ = run_of.step(Reply(text="Sunny.", delay_seconds=0), model=model, **settings)
    [message] = [message for message in request["messages"] if message["role"] == "assistant"]
    assert (message["reasoning_content"], message["tool_calls"][0]["id"]) == ("I should look.", "c")


@pytest.mark.parametrize("model", ["groq/x", "mistral/x"])
def test_a_provider_that_refuses_reasoning_gets_none(run_of, model):
    """It tells its own, but takes none back."""
    settings = {"api_base": run_of.server.url}
    answer = whole(event({"reasoning_content": "Look."}), call(id="c", name="plain", arguments="{}"))
    run_of.step(answer, model=model, **settings)
    run_of.settle()
    request, _ = run_of.step(Reply(text="Sunny.", delay_seconds=0), model=model, **settings)
    assert not any("reasoning_content" in message for message in request["messages"])


def test_reasoning_of_an_answer_without_calls_stays_here(run_of):
    """Nobody needs it again."""
    settings = {"api_base": run_of.server.url}
    run_of.step(whole(event({"reasoning_content": "Hm."}), event({"content": "Sunny."})), model="openai/x", **settings)
    lifecycle.send_message(run_of.thread, prompt="And now?")
    request, _ = run_of.step(Reply(text="Rain.", delay_seconds=0), model="openai/x", **settings)
    assert request["messages"][1] == {"role": "assistant", "content": "Sunny."}


def test_gemini_gets_the_signature_of_its_call_back(run_of):
    """It is in the id that the library gives to the call, which is ours to keep."""
    calls = [{"functionCall": {"name": "plain", "args": {"word": word}}} for word in "xy"]
    signed = {**calls[0], "thoughtSignature": "c2lnbmVk"}
    answer = gemini(({"text": "Hm.", "thought": True},), (signed, calls[1]))
    _, chunks = run_of.step(answer, model=GEMINI)
    assert not any("c2lnbmVk" in str(chunk) for chunk in chunks)
    run_of.settle()
    request, _ = run_of.step(gemini(({"text": "Sunny."},)), model=GEMINI)
    parts = [part for content in request["contents"] if content["role"] == "model" for part in content["parts"]]
    assert [part.get("thoughtSignature") for part in parts] == ["c2lnbmVk", None]


def test_gemini_gets_the_signature_of_its_text_back(run_of):
    """It comes after the text."""
    answer = gemini(({"text": "Sunny "},), ({"text": "today."},), ({"text": "", "thoughtSignature": "c2lnbmVk"},))
    run_of.step(answer, model=GEMINI)
    signed = {"type": "text", "text": "Sunny today.", "state": "done"}
    assert run_of.shown()[1] == {**signed, "providerMetadata": {"google": {"thoughtSignature": "c2lnbmVk"}}}
    lifecycle.send_message(run_of.thread, prompt="And now?")
    request, _ = run_of.step(gemini(({"text": "Rain."},)), model=GEMINI)
    assert request["contents"][1]["parts"] == [{"text": "Sunny today.", "thoughtSignature": "c2lnbmVk"}]


def test_an_answer_that_only_thinks_behind_closed_doors_says_nothing(server, failure, at_root):
    """Signatures are no text."""
    server.answer_with(anthropic(thinking_block("Hm.", signature="c2ln"), hidden_block("aGlk")))
    assert failure(model=CLAUDE, settings=at_root).kind.value == "provider_5xx"
