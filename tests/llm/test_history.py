"""The history as a provider gets it: valid for the strictest of them, whatever happened in the run."""

import json

import pytest

from durable_agents.llm import CONTINUE_PROMPT, Step, Turn, openai_messages
from durable_agents.parts import CallOutcome


def outcome(number=1, *, provider_call_id="", status="completed", **facts):
    """Return a call with its outcome."""
    return CallOutcome(
        tool_call_id=f"call_ours{number}",
        provider_call_id=provider_call_id,
        tool_name="add",
        arguments={"a": number},
        status=status,
        **facts,
    )


def asked(text="Hi"):
    """Return a user's turn."""
    return Turn(role="user", parts=[{"type": "text", "text": text}])


def answered(*steps):
    """Return the model's turn."""
    return Turn(role="assistant", steps=steps)


def step(text="", *calls, model=""):
    """Return a step that said this and made these calls."""
    return Step(parts=[{"type": "text", "text": text}], calls=calls, model=model)


def history(*turns, instructions="", max_result_bytes=1000, model=""):
    """Return the messages of some turns."""
    return openai_messages(instructions, turns, max_result_bytes=max_result_bytes, model=model)


def test_instructions_come_first():
    """As a system message."""
    assert history(asked(), instructions="Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


def test_no_instructions_make_no_system_message():
    """Some providers refuse an empty one."""
    assert [message["role"] for message in history(asked())] == ["user"]


def test_each_call_is_followed_by_its_result_in_order():
    """Before anything else is said."""
    first = step("Let me see.", outcome(1, result=1), outcome(2, result={"b": [2]}))
    messages = history(asked(), answered(first, step("Done.")), asked("Thanks"))
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "assistant", "user"]
    ids = [call["id"] for call in messages[1]["tool_calls"]]
    assert [message["tool_call_id"] for message in messages[2:4]] == ids
    assert [message["content"] for message in messages[2:4]] == ["1", '{"b": [2]}']


def test_arguments_are_json_text():
    """Whatever the model wrote; what was no JSON is stored as an object too."""
    [_, message, _] = history(asked(), answered(step("", outcome(result="x"))))
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"a": 1}
    assert message["content"] is None


@pytest.mark.parametrize("status", ["failed", "denied", "expired", "cancelled", "unknown", "running", "pending"])
def test_a_call_without_a_result_has_an_error_as_its_result(status):
    """The model is told, and every call has a result."""
    messages = history(asked(), answered(step("", outcome(status=status))))
    assert messages[-1]["role"] == "tool"
    assert messages[-1]["content"].startswith("Error: ")
    assert status in messages[-1]["content"]


def test_an_error_text_is_told_to_the_model():
    """As the row has it."""
    messages = history(asked(), answered(step("", outcome(status="failed", error="No such city."))))
    assert messages[-1]["content"] == "Error: No such city."


def test_a_long_result_is_cut_with_a_note():
    """In bytes, without half a character."""
    messages = history(asked(), answered(step("", outcome(result="ä" * 100))), max_result_bytes=51)
    text, note = messages[-1]["content"].split("\n")
    assert (text, "200 bytes in all" in note) == ("ä" * 25, True)


def test_a_history_that_ends_with_the_model_asks_it_to_go_on():
    """Most models refuse to continue their own message."""
    messages = history(asked(), answered(step("So far")))
    assert messages[-1] == {"role": "user", "content": CONTINUE_PROMPT}


def test_an_answer_without_words_leaves_no_message():
    """An empty one is refused by some providers."""
    assert [message["role"] for message in history(asked(), answered(step("")), asked("Well?"))] == [
        "user",
        "user",
    ]


def test_an_answer_that_has_not_begun_leaves_no_message():
    """The run's own message is empty when its first step is asked for."""
    assert [message["role"] for message in history(asked(), answered())] == ["user"]


def test_parts_of_a_user_message_are_one_text():
    """A blank line between them."""
    turn = Turn(role="user", parts=[{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}])
    assert history(turn) == [{"role": "user", "content": "One\n\nTwo"}]
