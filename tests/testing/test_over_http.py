"""With `http=True` the same script is told over real HTTP, and litellm reads it."""

import json
import urllib.error
import urllib.request

import pytest

from durable_agents import create_thread
from durable_agents.exceptions import ErrorKind
from durable_agents.models import Message, Stream, ToolCall
from durable_agents.testing import ScriptedModel, calls, does, fails, hangs, run_until_idle, says, thinks
from durable_agents.transcript import ui_messages
from tests.testing.shop import opened

pytestmark = pytest.mark.django_db


def test_an_answer_with_reasoning_text_and_parallel_calls_arrives_whole(shop):
    """The model's name stays the agent's."""
    first = [thinks("Two sums."), says("Let me see."), calls("add", a=1, b=2), calls("book", name="Ada")]
    with ScriptedModel(first, lambda request: f"It is {request.messages[-2]['content']}.", http=True) as model:
        thread = create_thread("shop", prompt="Add and book.")
        run_until_idle()
    parts = ui_messages(Message.objects.shown().filter(thread=thread))[-1]["parts"]
    assert [part["text"] for part in parts if "text" in part] == ["Two sums.", "Let me see.", "It is 3."]
    assert sorted(ToolCall.objects.values_list("tool_name", "status")) == [("add", "completed"), ("book", "completed")]
    assert [request.agent for request in model.requests] == ["shop", "shop"]
    stream = Stream.objects.filter(thread=thread).order_by("number").last()
    assert (stream.model, stream.output_tokens, stream.usage_estimated) == ("openai/gpt-x", 3, False)


def test_a_model_of_another_provider_is_asked_all_the_same():
    """In OpenAI's format, without a key."""
    with opened(model="anthropic/claude-haiku-4-5"), ScriptedModel("Hello.", http=True):
        thread = create_thread("shop", prompt="Hi.")
        run_until_idle()
    thread.refresh_from_db()
    assert thread.status == "completed"
    assert Stream.objects.get().model == "anthropic/claude-haiku-4-5"


@pytest.mark.parametrize("kind", [kind for kind in ErrorKind if kind not in {"max_steps", "crashed", "unknown"}])
def test_a_failure_arrives_as_the_kind_that_was_meant(shop, kind):
    """As a status of HTTP, or as a connection that breaks."""
    with opened(name="once", retry=False), ScriptedModel(fails(kind), http=True):
        thread = create_thread("once", prompt="Hi.")
        run_until_idle()
    thread.refresh_from_db()
    assert (thread.status, thread.error_code) == ("failed", kind)


def test_cut_and_silent_answers_are_tried_again(shop):
    """Without the wait of a real time-out; a wish to wait is heard, and skipped."""
    broken = ([says("Half"), fails("network")], [says("Half"), hangs()], fails("rate_limited", retry_after_seconds=90))
    with ScriptedModel(*broken, "Whole.", http=True):
        thread = create_thread("shop", prompt="Hi.")
        ran = run_until_idle()
    streams = Stream.objects.filter(thread=thread).order_by("number")
    assert [stream.error_code for stream in streams] == ["network", "network", "rate_limited", ""]
    assert ran.skipped_seconds > 80


def test_a_function_in_a_script_over_http_is_refused(shop):
    """It is said so."""
    with ScriptedModel([says("Hi."), does(lambda: None)], http=True):
        create_thread("shop", prompt="Hi.")
        with pytest.raises(TypeError, match="cannot be sent over HTTP"):
            run_until_idle()


def test_other_processes_get_the_next_answer_at_the_url():
    """Any client that speaks the format."""
    body = {"model": "x", "stream": True, "messages": [{"role": "user", "content": "Hi."}]}
    with ScriptedModel("Hello there.", http=True) as model:
        lines = post(model.url, body)
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(model.url, body)
    deltas = [json.loads(line[6:])["choices"] for line in lines if line.startswith("data: {")]
    assert "".join(choices[0]["delta"].get("content", "") for choices in deltas if choices) == "Hello there."
    assert lines[-1] == "data: [DONE]"
    with refused.value as error:
        assert "OutOfAnswersError" in error.read().decode()
    assert [request.messages for request in model.requests] == [body["messages"]] * 2


def test_other_processes_get_what_a_coroutine_answers():
    """Functions of a script may be either; what cannot be told is refused there, too, and an empty answer is one."""

    async def echo(request):
        return f"You said {request.messages[-1]['content']}"

    body = {"model": "x", "stream": True, "messages": [{"role": "user", "content": "Hi."}]}
    with ScriptedModel(echo, [], does(lambda: None), http=True) as model:
        assert "You" in "".join(post(model.url, body))
        assert post(model.url, body)[-1] == "data: [DONE]"
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(model.url, body)
    with refused.value as error:
        assert "cannot be sent over HTTP" in error.read().decode()


def test_a_slow_model_pauses_after_each_word(monkeypatch):
    """Of its text and of its reasoning, and not after the rest."""
    pauses = []
    body = {"model": "x", "stream": True, "messages": [{"role": "user", "content": "Hi."}]}
    answer = [thinks("One two"), says("three four five"), calls("add", a=1)]
    with ScriptedModel(answer, http=True, seconds_per_word=7) as model:
        monkeypatch.setattr(model._server.closing, "wait", pauses.append)
        assert post(model.url, body)[-1] == "data: [DONE]"
    assert pauses == [7] * 5


def test_only_a_model_over_http_can_be_slow():
    """Other answers are there at once."""
    with pytest.raises(TypeError, match="http=True"):
        ScriptedModel("Hi.", seconds_per_word=1)


def test_only_a_model_over_http_has_a_url():
    """And only while it is served."""
    with ScriptedModel() as model, pytest.raises(RuntimeError, match="http=True"):
        _ = model.url


def post(url, body):
    """Return the lines of the answer."""
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=5) as response:
        return response.read().decode().split("\n\n")[:-1]
