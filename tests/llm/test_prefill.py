"""An answer that goes on where an earlier attempt stopped: asked of models that do it, joined without a seam."""

import pytest

from durable_agents import Agent
from durable_agents.agents import registry
from durable_agents.engine.step_from_events import Answer
from durable_agents.llm import (
    CONTINUE_PROMPT,
    CallStarted,
    Finished,
    ReasoningDelta,
    Step,
    TextDelta,
    Turn,
    openai_messages,
)
from durable_agents.parts import fold
from tests.llm.paths import Said
from tests.llm.wire import Wire, anthropic_event
from tests.servers.model import Reply

CLAUDE = "anthropic/claude-sonnet-4-5"
ASKED = Turn(role="user", parts=[{"type": "text", "text": "Count."}])
USAGE = {"input_tokens": 5, "output_tokens": 1}
ANTHROPIC_TEXT = Wire(
    pieces=(
        anthropic_event("message_start", message={"id": "m", "role": "assistant", "content": [], "usage": USAGE}),
        anthropic_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        anthropic_event("content_block_delta", index=0, delta={"type": "text_delta", "text": " three."}),
        anthropic_event("content_block_stop", index=0),
        anthropic_event("message_delta", delta={"stop_reason": "end_turn"}, usage=USAGE),
        anthropic_event("message_stop"),
    )
)


@pytest.mark.parametrize("model", [CLAUDE, "claude-sonnet-4-5", "anthropic/claude-haiku-4-5", "deepseek/deepseek-chat"])
def test_a_model_that_is_known_to_continue_continues(model, door):
    """With or without the provider's name before it."""
    assert door.continues(model) is True


@pytest.mark.parametrize(
    "model",
    [
        "anthropic/claude-opus-4-6",
        "openai/gpt-4o",
        "openai/x",
        "openai/claude-sonnet-4-5",
        "ollama/x",
        "x",
        "databricks/x",
        "",
    ],
)
def test_any_other_model_does_not(model, door):
    """Nor one that nobody knows, and nobody is asked about it."""
    assert door.continues(model) is False


@pytest.mark.parametrize(
    "settings", [{"thinking": {"type": "enabled", "budget_tokens": 2000}}, {"reasoning_effort": "low"}]
)
def test_a_model_that_thinks_first_does_not_continue(settings, door):
    """Its answer must begin with its thoughts."""
    assert door.continues(CLAUDE, settings) is False


def history(*turns, prefill):
    """Return the messages of some turns before an answer that has begun."""
    return openai_messages("", turns, max_result_bytes=1000, prefill=prefill)


def test_what_was_said_comes_last_without_the_space_at_its_end():
    """Nothing comes after it, or the model would not go on with it."""
    assert history(ASKED, prefill="One\n two \n") == [
        {"role": "user", "content": "Count."},
        {"role": "assistant", "content": "One\n two"},
    ]


@pytest.mark.parametrize("prefill", ["", " \n"])
def test_an_answer_that_has_said_nothing_is_no_message(prefill):
    """White space is nothing."""
    assert history(ASKED, prefill=prefill) == [{"role": "user", "content": "Count."}]


def test_an_answer_to_go_on_with_stands_behind_what_it_answered():
    """The attempt that said it was asked to go on; it is asked the same again."""
    messages = history(
        ASKED, Turn(role="assistant", steps=[Step(parts=[{"type": "text", "text": "One"}])]), prefill="Two"
    )
    assert [message["content"] for message in messages] == ["Count.", "One", CONTINUE_PROMPT, "Two"]


def test_anthropic_gets_the_begun_answer_as_the_last_message(server, ask):
    """As the wire has it."""
    server.answer_with(ANTHROPIC_TEXT)
    messages = history(ASKED, prefill="One two \n")
    said = Said(ask(model=CLAUDE, settings={"api_base": server.url.removesuffix("/v1")}, messages=messages))
    assert said.text == " three."
    last = server.requests[0]["messages"][-1]
    assert last == {"role": "assistant", "content": [{"type": "text", "text": "One two"}]}


def test_a_server_that_is_told_to_continue_is_told_so_in_its_own_way(server, ask):
    """DeepSeek wants to hear of a prefix, else it begins anew."""
    server.answer_with(Reply(text="three.", delay_seconds=0))
    ask(model="deepseek/deepseek-chat", messages=history(ASKED, prefill="One"))
    last = server.requests[0]["messages"][-1]
    assert (last["role"], last["content"], last["prefix"]) == ("assistant", "One", True)


def test_a_message_that_is_not_to_be_continued_has_no_prefix(server, ask):
    """Other providers refuse the word."""
    server.answer_with(Reply(text="three.", delay_seconds=0))
    ask(
        messages=history(
            ASKED, Turn(role="assistant", steps=[Step(parts=[{"type": "text", "text": "One"}])]), prefill=""
        )
    )
    assert not any("prefix" in message for message in server.requests[0]["messages"])


def seeded(*texts, number=2):
    """Return an answer that goes on after these texts, the last of which is still open."""
    chunks = [{"type": "start-step"}]
    for place, text in enumerate(texts, 1):
        part = {"id": f"text-1-{place}"}
        chunks += [{"type": "text-start", **part}, {"type": "text-delta", **part, "delta": text}]
        chunks += [{"type": "text-end", **part}] if place < len(texts) else []
    return Answer(number=number, tool_input_deltas=False, seed=chunks), chunks


@pytest.fixture
def agent():
    """Return an agent without tools."""
    yield Agent("continues", model="openai/x")
    registry.remove("continues")


def parts_of(answer, agent):
    """Return the parts of a finished answer."""
    answer.take(Finished(finish_reason="stop", usage=None, model="m"))
    return answer.outcome(agent.tools).parts


def test_more_text_goes_on_in_the_open_part(agent):
    """Only what is new is said, and the step has it all."""
    answer, _ = seeded("One", "Two")
    assert answer.take(TextDelta(text=" three")) == [{"type": "text-delta", "id": "text-1-2", "delta": " three"}]
    assert [part.get("text") for part in parts_of(answer, agent)] == [None, "One", "Two three"]
    assert answer.own_text == " three"


def test_browsers_build_the_same_from_the_seed_and_what_came_after(agent):
    """Whatever came."""
    answer, seed = seeded("One", "Two ")
    events = [TextDelta(text=" "), TextDelta(text="three"), ReasoningDelta(text="Hm"), TextDelta(text="four")]
    sent = [chunk for event in events for chunk in answer.take(event)]
    sent += answer.take(Finished(finish_reason="stop", usage=None, model="m"))
    assert fold([*seed, *sent]) == answer.outcome(agent.tools).parts
    ids = [chunk["id"] for chunk in [*seed, *sent] if chunk["type"].endswith("-start")]
    assert len(ids) == len(set(ids)) == 4


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("event", [ReasoningDelta(text="Hm"), CallStarted(index=0, provider_call_id="", tool_name="x")])
def test_something_else_than_text_ends_the_open_part_first(event, number):
    """And has an id of its own, even within the same stream."""
    answer, _ = seeded("One", number=number)
    ended, begun, *_ = answer.take(event)
    assert ended == {"type": "text-end", "id": "text-1-1"}
    assert begun["type"] in {"reasoning-start", "tool-input-start"}
    assert begun.get("id") not in {"text-1-1", "reasoning-1-1"}


@pytest.mark.parametrize(
    ("begun", "pieces", "text"),
    [
        ("One ", ["two"], "One two"),
        ("One ", [" ", "two"], "One two"),
        ("One\n\n", ["\n\n- two"], "One\n\n- two"),
        ("One\n\n", ["\n", "- two"], "One\n\n- two"),
        ("One\n", ["\n", "\n", "two"], "One\n\ntwo"),
        ("One ", ["\ntwo"], "One \ntwo"),
        ("One", [" two"], "One two"),
        ("One ", [" two", "  three"], "One two  three"),
    ],
)
def test_white_space_at_the_seam_is_not_doubled(agent, begun, pieces, text):
    """The model was not shown what stood at the end, and so says it again."""
    answer, _ = seeded(begun)
    for piece in pieces:
        answer.take(TextDelta(text=piece))
    assert parts_of(answer, agent)[-1]["text"] == text


def test_a_seed_without_an_open_part_is_followed_by_a_new_one():
    """With its own beginning."""
    answer = Answer(number=2, tool_input_deltas=False, seed=[{"type": "start-step"}])
    assert [chunk["type"] for chunk in answer.take(TextDelta(text="One"))] == ["text-start", "text-delta"]


def test_an_answer_without_a_seed_begins_its_step():
    """As before."""
    answer = Answer(number=2, tool_input_deltas=False)
    assert [chunk["type"] for chunk in answer.take(TextDelta(text="One"))] == [
        "start-step",
        "text-start",
        "text-delta",
    ]
