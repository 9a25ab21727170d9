"""The scripted model understands its few phrases and speaks OpenAI's protocol."""

import itertools
import json

import httpx
import pytest

from demo_project.model_server import Call, Reply, deltas, tokens
from demo_project.scripted_model import answer, story, wanted_calls
from tests.servers.model import Cut, Garbage, ModelUnderTest, Stall, Status

NAMES = ("get_weather", "get_time", "add", "count_to", "book_table", "ask_colleague", "pick_date")
TOOLS = [{"type": "function", "function": {"name": name}} for name in NAMES]


def asked(prompt: str, tools: list[dict] = TOOLS) -> Reply:
    """Return the reply to a user who says `prompt`."""
    return answer({"messages": [{"role": "user", "content": prompt}], "tools": tools})


@pytest.mark.parametrize(
    ("prompt", "calls"),
    [
        ("What's the weather in Paris?", [("get_weather", {"city": "Paris"})]),
        (
            "What is the weather in Paris and the time in Tokyo?",
            [("get_weather", {"city": "Paris"}), ("get_time", {"tz": "Asia/Tokyo"})],
        ),
        ("weather in rome, new york", [("get_weather", {"city": "Rome"}), ("get_weather", {"city": "New York"})]),
        ("What time is it in New York now?", [("get_time", {"tz": "America/New_York"})]),
        ("time in Nowhere", [("get_time", {"tz": "nowhere"})]),
        ("Add 2 and 3", [("add", {"a": 2.0, "b": 3.0})]),
        ("What is 2+3?", [("add", {"a": 2.0, "b": 3.0})]),
        (
            "time in Tokyo, and add 4 and 5",
            [("add", {"a": 4.0, "b": 5.0}), ("get_time", {"tz": "Asia/Tokyo"})],
        ),
        ("What is the weather?", []),
        ("Hello", []),
    ],
)
def test_a_phrase_calls_the_tools_it_asks_for(prompt, calls):
    """Two things asked at once are two calls in parallel."""
    assert [(call.name, call.arguments) for call in wanted_calls(prompt.lower())] == calls


@pytest.mark.parametrize(
    ("prompt", "name", "arguments"),
    [
        (
            "Book a table for four at Luigi's at 19:30",
            "book_table",
            {"restaurant": "Luigi's", "people": 4, "time": "19:30"},
        ),
        ("book a table", "book_table", {"restaurant": "Luigi's", "people": 2, "time": "19:30"}),
        (
            "Please reserve a table at 20:15 in The Fox, for 12.",
            "book_table",
            {"restaurant": "The Fox", "people": 12, "time": "20:15"},
        ),
        ("Ask a colleague: do we ship on Friday?", "ask_colleague", {"question": "Do we ship on Friday?"}),
        ("Ask my colleague whether Ann is in", "ask_colleague", {"question": "Ann is in?"}),
        ("Ask a colleague.", "ask_colleague", {"question": "Can you help us?"}),
        ("Let me pick a date for the launch", "pick_date", {"label": "Date for the launch"}),
        ("Let me choose a date", "pick_date", {"label": "Which date?"}),
        ("Count to ten", "count_to", {"number": 10}),
        ("count to 25, please", "count_to", {"number": 25}),
    ],
)
def test_a_phrase_calls_the_tool_that_waits(prompt, name, arguments):
    """For an approval, a colleague, a date, or just for time; with the words as they were written."""
    assert [(call.name, call.arguments) for call in asked(prompt).calls] == [(name, arguments)]


@pytest.mark.parametrize("prompt", ["Add 2 and 3", "Book a table", "Ask a colleague", "Pick a date", "Count to ten"])
def test_a_tool_that_is_not_offered_is_not_called(prompt):
    """The model knows only what the request tells it."""
    assert asked(prompt, tools=[]).calls == ()


def said_of(name: str, content: str) -> str:
    """Return what the model says of the result of one call."""
    call = {"id": "1", "function": {"name": name, "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "1", "content": content}
    return answer({"messages": [{"role": "assistant", "tool_calls": [call]}, result]}).text.partition("\n\n*")[0]


BOOKED = '{"booking": 7, "restaurant": "Luigi\'s", "people": 4, "time": "19:30"}'


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("book_table", BOOKED, "Your table is booked: **Luigi's**, 4 people, 19:30. It is booking number 7."),
        (
            "book_table",
            f'[A person changed the arguments to {{"people": 4}} before the call ran.]\n{BOOKED}',
            "Your table is booked: **Luigi's**, 4 people, 19:30. It is booking number 7.",
        ),
        ("book_table", "Error: A person refused this call.", "All right, I'll leave it."),
        ("book_table", "Error: A person refused this call. Too far.", "All right, I'll leave it. You said: Too far."),
        ("book_table", "Error: Nobody answered.", "The tool book_table failed: Nobody answered."),
        ("ask_colleague", "Yes, on Friday.", "Your colleague says: Yes, on Friday."),
        ("pick_date", "2026-12-24", "You picked Thursday, 24 December 2026."),
        ("pick_date", "soon", "You picked soon."),
        ("count_to", "10", "I counted to 10."),
    ],
)
def test_an_outcome_is_put_into_words(name, content, said):
    """As the model is told of it."""
    assert said_of(name, content) == said


def test_a_late_answer_of_a_colleague_is_passed_on():
    """In the words in which a model is told of a result that it did not wait for."""
    told = '[The call of ask_colleague that was still open has its result: "On Friday."]'
    assert asked(told).text.startswith("Your colleague says: On Friday.")


@pytest.mark.parametrize("prompt", ["Hello", "Think about it", "Tell me a long story"])
def test_every_answer_says_that_it_is_scripted_and_how_to_change_that(prompt):
    """Nobody takes it for a real model."""
    text = asked(prompt).text
    assert "scripted" in text
    assert "DEMO_MODEL" in text
    assert "--local-model" in text


def test_tool_results_are_used_in_the_answer():
    """A failed call is reported as it is."""
    calls = [
        {"id": "1", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}},
        {"id": "2", "function": {"name": "get_time", "arguments": '{"tz": "nowhere"}'}},
    ]
    results = [
        {"role": "tool", "tool_call_id": "1", "content": "5.0"},
        {"role": "tool", "tool_call_id": "2", "content": "'nowhere' is no time zone."},
    ]
    text = answer({"messages": [{"role": "assistant", "tool_calls": calls}, *results]}).text
    assert text.startswith("2 and 3 make 5. The tool get_time answered: 'nowhere' is no time zone.")


def test_the_story_lasts_about_a_minute_and_does_not_repeat_itself():
    """Long enough to kill a worker in between; clients give up on a model that repeats one chunk."""
    reply = asked("Tell me a long story")
    assert 45 < sum(1 for _ in deltas(reply)) * reply.delay_seconds < 80
    pieces = tokens(story())
    assert all(first != second for first, second in itertools.pairwise(pieces))


def test_tokens_joined_again_are_the_text():
    """No space is lost."""
    text = "  One two,\n\nthree.  "
    assert "".join(tokens(text)) == text


def events(url: str, **request: object) -> list[dict]:
    """Return the events of a streamed answer, without the closing mark."""
    body = {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": "Hello"}], **request}
    with httpx.stream("POST", f"{url}/chat/completions", json=body, trust_env=False) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_streamed_answer_has_text_calls_reason_and_usage(model_server):
    """In the shape and order that OpenAI documents."""
    model_server.answer_with(Reply(text="Two words.", calls=(Call(name="add", arguments={"a": 1, "b": 2}),)))
    found = events(model_server.url, stream_options={"include_usage": True})
    deltas_found = [event["choices"][0]["delta"] for event in found[:-1]]
    assert "".join(delta.get("content") or "" for delta in deltas_found) == "Two words."
    calls = [delta["tool_calls"][0] for delta in deltas_found if "tool_calls" in delta]
    assert calls[0]["id"]
    assert calls[0]["function"] == {"name": "add", "arguments": ""}
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"a": 1, "b": 2}
    assert found[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["completion_tokens"] > 0


def test_a_whole_answer_is_one_json_object(model_server):
    """For clients that do not stream."""
    answered = httpx.post(f"{model_server.url}/chat/completions", json={"messages": []}, trust_env=False).json()
    assert answered["choices"][0]["message"]["content"] == "Hello."
    assert answered["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/nothing", b"", 404),
        ("POST", "/chat/completions", b"{", 400),
        ("POST", "/chat/completions", b"[]", 400),
    ],
)
def test_a_request_it_cannot_answer_is_an_error_object(model_server, method, path, content, status):
    """Not a closed connection."""
    answered = httpx.request(method, f"{model_server.url}{path}", content=content, trust_env=False)
    assert answered.status_code == status
    assert answered.json()["error"]["code"] == status


def test_a_client_that_leaves_ends_its_answer(model_server):
    """A stopped run must not go on costing."""
    model_server.answer_with(Reply(text="word " * 1000, delay_seconds=0.05))
    body = {"stream": True, "messages": []}
    with httpx.stream("POST", f"{model_server.url}/chat/completions", json=body, trust_env=False) as response:
        next(response.iter_lines())
    assert model_server.wait_for_end(0) == "client left"


def test_each_fault_looks_as_a_client_would_see_it():
    """The server of the tests itself is honest."""
    reply = Reply(text="One two three four.", delay_seconds=0)
    script = (
        Status(status=429, headers={"Retry-After": "2"}),
        Garbage(),
        Cut(reply=reply, after=2, clean=True),
        Cut(reply=reply, after=2),
        Stall(reply=reply, after=2, seconds=0.1),
    )
    with ModelUnderTest(*script) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        body = {"stream": True, "messages": []}
        refused = client.post("/chat/completions", json=body)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
        assert client.post("/chat/completions", json=body).text.startswith("<html>")
        cut = client.post("/chat/completions", json=body).text
        assert cut.count("data:") == 2
        assert "[DONE]" not in cut
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("/chat/completions", json=body)
        assert "[DONE]" in client.post("/chat/completions", json=body).text
    assert len(server.requests) == 5
