"""Messages over REST: sent once, read in order, with the answer that is being written where that is asked for."""

import pytest

from durable_agents import add_message, create_thread, send_message, stop_thread
from durable_agents.models import Message, Stream
from tests.api.calls import all_pages, problem
from tests.lifecycle.stage import calling

pytestmark = pytest.mark.django_db

FIELDS = {"id", "client_id", "role", "parts", "metadata", "sender", "position", "created_at"}


@pytest.fixture
def thread(agent, me):
    """Return a thread with one question."""
    return create_thread(agent, owner=me, prompt="Question")


@pytest.fixture
def path(thread):
    """Return the path of its messages."""
    return f"threads/{thread.pk}/messages/"


def texts(rows):
    """Return what each message says, in order."""
    return ["".join(part.get("text", "") for part in row["parts"]) for row in rows]


def test_a_message_is_taken_and_the_run_begins(api, agent, me):
    """The answer comes later."""
    thread = create_thread(agent, owner=me)
    response = api.post(f"threads/{thread.pk}/messages/", {"prompt": "Hi", "client_id": "m1", "metadata": {"a": 1}})
    body = response.json()
    assert response.status_code == 202
    assert set(body) == FIELDS
    assert (body["id"], body["client_id"], body["role"]) == ("m1", "m1", "user")
    assert body["parts"] == [{"type": "text", "text": "Hi"}]
    assert body["metadata"] == {"a": 1, "sender": body["sender"]}
    assert body["position"] == 1
    assert Stream.objects.open().filter(thread=thread).exists()


def test_the_same_client_id_again_gives_back_the_message(api, agent, me):
    """A repeated request says nothing twice."""
    path = f"threads/{create_thread(agent, owner=me).pk}/messages/"
    first = api.post(path, {"prompt": "Hi", "client_id": "m1"})
    again = api.post(path, {"prompt": "changed", "client_id": "m1"})
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()
    assert Message.objects.filter(role="user").count() == 1


def test_a_message_may_be_parts(api, path):
    """As a UI message has them; what they carry beyond is dropped."""
    body = api.post(path, {"parts": [{"type": "text", "text": "Hi", "state": "done"}]}).json()
    assert body["parts"] == [{"type": "text", "text": "Hi"}]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": ""},
        {"prompt": "  "},
        {"prompt": None},
        {"prompt": "a", "parts": [{"type": "text", "text": "a"}]},
        {"parts": []},
        {"parts": [{"type": "text"}]},
        {"parts": [{"type": "tool-plain", "toolCallId": "x", "state": "output-available", "output": 1}]},
        {"parts": [{"type": "data-secret", "data": {}}]},
        {"parts": ["text"]},
    ],
)
def test_what_is_no_user_message_is_refused(api, path, body):
    """No empty ones, and none of the kinds that only agents make."""
    assert problem(api.post(path, body)) == (400, "invalid_parts")


@pytest.mark.parametrize(
    "body",
    [
        {"parts": "x"},
        {"prompt": {"a": 1}},
        {"metadata": []},
        {"client_id": "x" * 201},
        {"client_id": "a\x00b"},
        [],
        "x",
    ],
)
def test_fields_of_the_wrong_type_are_refused(api, path, body):
    """One code for them all."""
    given = {"prompt": "Hi", **body} if isinstance(body, dict) else body
    assert problem(api.send("POST", path, given if given != "x" else '"x"')) == (400, "invalid")


def test_nobody_speaks_as_the_assistant_or_the_system(api, path):
    """The role is not the caller's to choose, nor are place and time."""
    body = api.post(path, {"prompt": "Hi", "role": "system", "position": 99, "created_at": "2000-01-01"}).json()
    assert body["role"] == "user"
    assert body["position"] < 99
    assert not body["created_at"].startswith("2000")


def test_what_no_database_stores_is_replaced(api, path):
    """NUL and lone surrogates come from broken clients and must not break the thread."""
    body = '{"prompt": "a\\u0000b\\ud800c", "metadata": {"k\\u0000": "\\udfff"}}'
    sent = api.post(path, body).json()
    assert sent["parts"][0]["text"] == "a\ufffdb\ufffdc"
    assert sent["metadata"] == {"k\ufffd": "\ufffd", "sender": sent["sender"]}


def test_a_text_over_the_limit_is_too_large(api, path, settings):
    """Characters are counted, not bytes."""
    settings.DURABLE_AGENTS = {"MAX_TEXT_CHARS": 3}
    assert api.post(path, {"prompt": "äöü"}).status_code == 202
    assert problem(api.post(path, {"prompt": "äöüß"})) == (413, "too_large")


def test_a_busy_agent_may_reject(api, me, declare):
    """The other three ways of being busy are the state machine's."""
    thread = create_thread(declare(public=True, when_busy="reject"), owner=me, prompt="One")
    assert problem(api.post(f"threads/{thread.pk}/messages/", {"prompt": "Two"})) == (409, "thread_busy")


def test_messages_are_listed_oldest_first_with_steps_and_outcomes(api, path, worker):
    """The assistant's is assembled from its steps, each with its beginning."""
    call = calling()
    worker.answer("Let me see.", call)
    worker.settle("found")
    worker.answer("Found.")
    question, answer = api.get(path).json()["results"]
    assert set(answer) == FIELDS
    assert (question["role"], answer["role"]) == ("user", "assistant")
    assert (question["position"], answer["position"]) == (1, 2)
    assert [part["type"] for part in answer["parts"]] == ["step-start", "text", "tool-plain", "step-start", "text"]
    assert answer["parts"][2]["state"] == "output-available"
    assert answer["parts"][2]["output"] == "found"
    assert None not in answer["parts"][2].values()


def test_an_answer_without_parts_is_not_listed(api, path, thread):
    """Neither while nothing is committed nor where the run was stopped before anything was said."""
    assert texts(api.get(path).json()["results"]) == ["Question"]
    stop_thread(thread)
    assert texts(api.get(path).json()["results"]) == ["Question"]


def test_a_page_ends_before_it_is_too_large(api, path, thread, worker, monkeypatch):
    """Also backwards, and a message that is too large alone is a page of its own."""
    monkeypatch.setattr("durable_agents.stored_sizes.REPLY_BYTES", 3_000)
    worker.answer("x" * 5_000)
    for number in range(3):
        add_message(thread, "user", f"{number}" * 1_000)
    pages = [api.get(path).json()]
    while pages[-1]["next"]:
        pages.append(api.follow(pages[-1]["next"]).json())
    assert [[row["position"] for row in page["results"]] for page in pages] == [[1], [2], [3, 4], [5]]
    back = api.follow(pages[-1]["previous"]).json()
    assert [row["position"] for row in back["results"]] == [3, 4]
    assert back["next"]


def test_queued_messages_come_last_without_a_position(api, me, declare, worker):
    """In the order in which they wait."""
    thread = create_thread(declare(public=True, when_busy="queue"), owner=me, prompt="One")
    for text in ("Two", "Three"):
        send_message(thread, text)
    rows = api.get(f"threads/{thread.pk}/messages/").json()["results"]
    assert texts(rows) == ["One", "Two", "Three"]
    assert [row["position"] for row in rows] == [1, None, None]
    assert texts(all_pages(api, f"threads/{thread.pk}/messages/", limit=1)) == ["One", "Two", "Three"]


def test_after_a_position_come_later_messages_and_queued_ones(api, me, declare, worker):
    """The position itself is left out."""
    thread = create_thread(declare(public=True, when_busy="queue"), owner=me, prompt="One")
    worker.answer("First answer.")
    send_message(thread, "Two")
    send_message(thread, "Queued")
    path = f"threads/{thread.pk}/messages/"
    assert texts(api.get(path, after=1).json()["results"]) == ["First answer.", "Two", "Queued"]
    assert texts(api.get(path, after=3).json()["results"]) == ["Queued"]
    assert texts(all_pages(api, path, after=1, limit=1)) == ["First answer.", "Two", "Queued"]
    assert problem(api.get(path, after="x")) == (400, "invalid")


def test_the_envelope_has_a_stream_only_where_it_is_asked_for(api, path):
    """The paginated envelope, and with streams=1 one field more."""
    assert set(api.get(path).json()) == {"next", "previous", "results"}
    assert set(api.get(path, streams=1).json()) == {"next", "previous", "results", "stream"}


def test_the_open_stream_is_folded_into_its_message(api, path, thread, worker):
    """After what is committed, with the seq of the last delta that is in it."""
    worker.answer("Let me see.", calling())
    worker.settle("found")
    claim = worker.claim_step()
    before = api.get(path, streams=1).json()
    worker.say(claim, "Fou", "nd")
    body = api.get(path, streams=1).json()
    answer = body["results"][-1]
    assert answer["parts"][-1] == {"type": "text", "text": "Found", "state": "streaming"}
    assert body["stream"] == {"id": str(claim.row_id), "number": 2, "seq": 1, "message": answer["id"]}
    assert before["stream"]["seq"] == -1
    assert len(before["results"][-1]["parts"]) == 3


def test_an_answer_that_has_begun_is_listed_with_its_stream_only(api, path, worker):
    """Without streams it has no parts yet."""
    worker.say(worker.claim_step(), "Hel")
    assert texts(api.get(path, streams=1).json()["results"]) == ["Question", "Hel"]
    assert texts(api.get(path).json()["results"]) == ["Question"]


def test_no_stream_is_told_where_none_is_open_or_its_number_is_too_low(api, path, worker):
    """A caller says from which number on streams are news."""
    worker.say(worker.claim_step(), "Hel")
    assert api.get(path, streams=1, from_number=2).json()["stream"] is None
    assert texts(api.get(path, streams=1, from_number=2).json()["results"]) == ["Question"]
    assert api.get(path, streams=1, from_number=1).json()["stream"]["number"] == 1


def test_at_rest_there_is_no_open_stream(api, path, worker):
    """The field is there all the same."""
    worker.answer("Done.")
    body = api.get(path, streams=1).json()
    assert (texts(body["results"]), body["stream"]) == (["Question", "Done."], None)


def test_a_step_committed_while_it_is_read_is_shown_once(api, path, thread, worker, monkeypatch):
    """The page is the thread as it was when it was looked up."""
    claim = worker.claim_step()
    worker.say(claim, "Hel", "lo.")
    listed = Message.objects.shown

    def late() -> object:
        worker.answer("Hello.", claim=claim)
        monkeypatch.setattr(Message.objects, "shown", listed)
        return listed()

    monkeypatch.setattr("durable_agents.models.Message.objects.shown", late)
    body = api.get(path, streams=1).json()
    assert Stream.objects.get(pk=claim.row_id).state == "finished"
    assert texts(body["results"]) == ["Question", "Hello."]
    assert body["stream"]["seq"] == 1


def test_a_stopped_answer_keeps_what_was_said(api, path, thread, worker):
    """The partial text is part of the transcript."""
    worker.say(worker.claim_step(), "Hel")
    stop_thread(thread)
    assert texts(api.get(path).json()["results"]) == ["Question", "Hel"]


def test_a_known_client_id_needs_no_text(api, path):
    """The request was understood the first time."""
    first = api.post(path, {"prompt": "Hi", "client_id": "m1"})
    again = api.post(path, {"client_id": "m1"})
    assert (again.status_code, again.json()) == (200, first.json())
    assert problem(api.post(path, {"client_id": "m2"})) == (400, "invalid_parts")


def test_the_id_of_a_message_is_taken(api, path):
    """By a user's own message it names that one; no other message is shown under it."""
    question = api.get(path).json()["results"][0]
    again = api.post(path, {"prompt": question["parts"][0]["text"], "client_id": question["id"]})
    assert (again.status_code, again.json()) == (200, question)
    answer = Message.objects.get(role="assistant")
    assert problem(api.post(path, {"prompt": "Hi", "client_id": str(answer.pk)})) == (400, "invalid_parts")
