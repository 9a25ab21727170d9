"""Ids of calls in the history: in the form that each vendor takes, each once, the same in every step and process."""

import json
import re
import subprocess
import sys

import pytest

from durable_agents.llm import ModelRequest, Step, Turn, openai_messages
from durable_agents.llm.litellm.request import arguments_of
from durable_agents.parts import CallOutcome
from tests.architecture.sources import ROOT
from tests.llm.wire import says, whole

OURS = ["call_" + 32 * letter for letter in "abcdef"]
NINE = re.compile(r"[a-zA-Z0-9]{9}")


def call(number, provider_call_id=""):
    """Return a call of ours that has ended."""
    return CallOutcome(
        tool_call_id=OURS[number],
        provider_call_id=provider_call_id,
        tool_name="add",
        arguments={"a": number},
        status="completed",
        result=number,
    )


def step(*calls, model="openai/gpt-4o"):
    """Return a step that made these calls."""
    return Step(parts=[], calls=calls, model=model)


def history(*steps, model):
    """Return the messages of a question and these steps."""
    asked = Turn(role="user", parts=[{"type": "text", "text": "Hi"}])
    return openai_messages("", [asked, Turn(role="assistant", steps=steps)], max_result_bytes=1000, model=model)


def ids_of(messages):
    """Return the ids of the calls; those of the results must be the same in the same order."""
    calls = [call["id"] for message in messages for call in message.get("tool_calls") or ()]
    assert calls == [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    return calls


MISTRALS = [
    *("mistral/mistral-large-latest", "mistral/my-own", "codestral/codestral-latest", "mistral/ministral-8b"),
    *("openrouter/mistralai/mistral-large", "openrouter/mistralai/devstral-small", "azure_ai/mistral-large-2411"),
    *("azure_ai/Mistral-large-2407", "vertex_ai/mistral-large@2411", "bedrock/mistral.mistral-large-2402-v1:0"),
    *(
        "bedrock/converse/us.mistral.pixtral-large-2502-v1:0",
        "openai/mistral-small",
        "hosted_vllm/mistralai/Mixtral-8x7B",
    ),
    *("groq/mixtral-8x7b-32768", "together_ai/mistralai/Magistral-Small", "openai/an-alias", "litellm_proxy/chat"),
]
GIVEN = {
    "ours only": ["", "", ""],
    "another vendor's": ["call_0123456789abcdef01234567", "toolu_01A09q90qw90lq917835lq9", "0"],
    "one twice": ["call_0", "call_0", "call_1"],
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("model", MISTRALS)
def test_mistral_gets_nine_letters_and_digits_wherever_it_is_served(model, given):
    steps = [step(call(0, given[0]), call(1, given[1])), step(call(2, given[2]), model="anthropic/claude-sonnet-4-5")]
    ids = ids_of(history(*steps, model=model))
    assert all(NINE.fullmatch(call_id) for call_id in ids)
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    "model", ["mistral/mistral-large-latest", "openrouter/mistralai/mistral-large", "azure_ai/mistral-x"]
)
def test_mistral_gets_them_over_the_wire(server, ask, model):
    """litellm leaves them as they are."""
    server.answer_with(whole(*says("Hi")))
    ask(model=model, messages=history(step(call(0, "call_0"), call(1, "call_0")), step(call(2)), model=model))
    ids = ids_of(server.requests[0]["messages"])
    assert (len(set(ids)), all(NINE.fullmatch(call_id) for call_id in ids)) == (3, True)


def test_ids_that_a_project_puts_into_the_history_fit_too(server, ask):
    """Call and result alike."""
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": f"an example {number}", "type": "function", "function": {"name": "add", "arguments": "{}"}}
            for number in (1, 2)
        ]},
        *[{"role": "tool", "tool_call_id": f"an example {number}", "content": "1"} for number in (1, 2)],
    ]  # fmt: skip
    server.answer_with(whole(*says("Hi")))
    ask(model="mistral/mistral-large-latest", messages=messages)
    ids = ids_of(server.requests[0]["messages"])
    assert (len(set(ids)), all(NINE.fullmatch(call_id) for call_id in ids)) == (2, True)


def test_mistrals_own_ids_go_back_to_it():
    model = "mistral/mistral-large-latest"
    assert ids_of(history(step(call(0, "D681PevKs"), model=model), model=model)) == ["D681PevKs"]


@pytest.mark.parametrize(
    "own", ["chatcmpl-tool-0123456789abcdef0123456789abcdef", "call_0", "äöüäöüäöü", "D681PevKs\n"]
)
def test_an_own_id_in_a_form_that_is_refused_is_replaced(own):
    """A server of Mistral's models may give ids that their template refuses."""
    model = "openai/mistral-small"
    [call_id] = ids_of(history(step(call(0, own), model=model), model=model))
    assert NINE.fullmatch(call_id)


@pytest.mark.parametrize(
    ("model", "own", "is_kept"),
    [
        ("openai/gpt-4o", "call_0123456789abcdef01234567", True),
        ("openai/gpt-4o", "x" * 41, False),
        ("azure/gpt-4o", "x" * 41, False),
        ("anthropic/claude-sonnet-4-5", "toolu_01A09q90qw90lq917835lq9", True),
        ("anthropic/claude-sonnet-4-5", "functions.add:0", False),
        ("openrouter/anthropic/claude-sonnet-4-5", "functions.add:0", False),
        ("bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0", "tooluse_0123456789", True),
        ("bedrock/amazon.nova-pro-v1:0", "x" * 65, False),
        ("gemini/gemini-3-pro-preview", "call_1__thought__" + "Ab+/=" * 100, True),
        ("vertex_ai/gemini-3-pro-preview", "call_1__thought__" + "Ab+/=" * 100, True),
        ("moonshot/kimi-k2", "functions.add:0", True),
        ("groq/llama-3.3-70b-versatile", "call_abcd", True),
        ("deepseek/deepseek-chat", "call_0_6a0c4f6b-2d6e-4d0c-9c1c-5a3c7f6f1f11", True),
    ],
)
def test_a_vendors_own_id_goes_back_where_it_takes_it(model, own, is_kept):
    ids = ids_of(history(step(call(0, own), model=model), model=model))
    assert ids == [own] if is_kept else NINE.fullmatch(ids[0])


def test_another_vendors_id_is_replaced():
    """It may be too long, or have characters that this one refuses."""
    steps = [step(call(0, "p__thought__+/="), model="gemini/gemini-3-pro")]
    [call_id] = ids_of(history(*steps, model="anthropic/claude-sonnet-4-5"))
    assert NINE.fullmatch(call_id)


@pytest.mark.parametrize("together", [True, False])
def test_an_id_that_a_provider_gives_twice_stays_with_its_first_call(together):
    """In one step or in two: what has been sent once does not change."""
    calls = [call(0, "call_0"), call(1, "call_0")]
    steps = [step(*calls)] if together else [step(calls[0]), step(calls[1])]
    first, second = ids_of(history(*steps, model="openai/gpt-4o"))
    assert first == "call_0"
    assert NINE.fullmatch(second)


def test_the_same_id_of_ours_twice_is_two_ids():
    """Clients name the calls of messages that a project imports."""
    ids = ids_of(history(step(call(0)), step(call(0)), model="mistral/x"))
    assert len(set(ids)) == 2


@pytest.mark.parametrize("model", ["openai/gpt-4o", "mistral/mistral-large-latest", "anthropic/claude-sonnet-4-5"])
def test_ids_of_earlier_steps_do_not_change_as_a_run_goes_on(model):
    """Else the provider's prompt cache is lost, and so is what it thought."""
    given = ["call_0", "", "call_0", "call_0123456789abcdef01234567", "call_1", ""]
    steps = [step(call(number, own), model=model) for number, own in enumerate(given)]
    all_ids = ids_of(history(*steps, model=model))
    for length in range(1, len(steps)):
        assert ids_of(history(*steps[:length], model=model)) == all_ids[:length]


def test_ids_are_the_same_in_every_process(child_env):
    """Hashes of Python's own differ."""
    program = f"from durable_agents.llm.vendor_call_ids import short_id; print(short_id({OURS[0]!r}))"
    told = {
        subprocess.run(
            [sys.executable, "-c", f"import django; django.setup(); {program}"],
            cwd=ROOT,
            env={**child_env, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == set(ids_of(history(step(call(0)), model="mistral/x")))


def test_the_request_of_another_provider_has_them_too():
    """Bedrock's is signed, so that it is looked at before litellm."""
    model = "bedrock/mistral.mistral-large-2402-v1:0"
    request = ModelRequest(model=model, messages=history(step(call(0, "call_0")), model="openai/gpt-4o"))
    assert all(NINE.fullmatch(call_id) for call_id in ids_of(arguments_of(request)["messages"]))


def test_a_step_is_converted_alike_when_it_is_converted_again():
    """Whatever was done to the messages that were returned, and for another limit."""
    steps = [step(call(0, "call_0")), step(call(1), call(2))]
    first = history(*steps, model="openai/gpt-4o")
    unchanged = json.dumps(first)
    for message in first:
        for made in message.pop("tool_calls", ()):
            made["id"] = made["function"]["arguments"] = "changed"
        message["content"] = "changed"
    assert json.dumps(history(*steps, model="openai/gpt-4o")) == unchanged
    turns = [Turn(role="assistant", steps=[step(CallOutcome(**{**vars(call(0)), "result": "long " * 10}))])]
    contents = [openai_messages("", turns, max_result_bytes=size)[1]["content"] for size in (100, 5, 100)]
    assert contents[0] == contents[2] != contents[1]


def test_a_step_that_was_converted_gives_way_to_an_earlier_call_with_its_id():
    later, earlier = step(call(1, "call_0")), step(call(0, "call_0"))
    assert ids_of(history(later, model="openai/gpt-4o")) == ["call_0"]
    first, second = ids_of(history(earlier, later, model="openai/gpt-4o"))
    assert first == "call_0"
    assert NINE.fullmatch(second)
    assert ids_of(history(later, model="openai/gpt-4o")) == ["call_0"]
