"""Editing, regenerating and forking over REST: each answers at once with what it made, at rest only."""

import pytest

from durable_agents import create_thread, send_message
from durable_agents.models import Message, Thread
from tests.api.calls import Api, person, problem

pytestmark = pytest.mark.django_db


@pytest.fixture
def talk(agent, me, worker):
    """Return a thread with two questions, "q1" and "q2", and their answers."""
    made = create_thread(agent, owner=me, client_id="talk", context={"tenant": 7}, title="Talk")
    for number in (1, 2):
        send_message(made, f"Question {number}", client_id=f"q{number}", metadata={"n": number})
        worker.answer(f"Answer {number}.")
    return made


@pytest.fixture
def busy(agent, me):
    """Return a thread with a run going on."""
    return create_thread(agent, owner=me, prompt="Hi")


def texts(api, thread_id):
    """Return what the messages of a thread say."""
    listed = api.get(f"threads/{thread_id}/messages/").json()["results"]
    return ["".join(part.get("text", "") for part in message["parts"]) for message in listed]


def answer_ids(api, thread_id):
    """Return the ids of the answers."""
    listed = api.get(f"threads/{thread_id}/messages/").json()["results"]
    return [message["id"] for message in listed if message["role"] == "assistant"]


@pytest.mark.parametrize("slash", ["/", ""])
@pytest.mark.parametrize("by", ["id", "client_id"])
def test_a_message_is_edited_and_answered_anew(api, talk, worker, by, slash):
    """Under the same id; what was said after it is gone."""
    thread_id = talk.client_id if by == "client_id" else talk.pk
    response = api.send("PUT", f"threads/{thread_id}/messages/q1{slash}", {"prompt": "Another question"})
    body = response.json()
    assert (response.status_code, body["id"], body["role"]) == (202, "q1", "user")
    assert body["parts"] == [{"type": "text", "text": "Another question"}]
    assert body["metadata"] == {"n": 1, "sender": body["sender"]}
    assert api.get(f"threads/{talk.pk}/").json()["status"] == "streaming"
    worker.answer("Another answer.")
    assert texts(api, talk.pk) == ["Another question", "Another answer."]


def test_an_edit_may_have_parts_and_metadata(api, talk):
    """Instead of a prompt and of the metadata that was."""
    body = {"parts": [{"type": "text", "text": "In parts"}], "metadata": {"edited": True}}
    told = api.send("PUT", f"threads/{talk.pk}/messages/q2/", body).json()
    assert (told["parts"], told["metadata"]) == (body["parts"], {"edited": True, "sender": told["sender"]})
    assert texts(api, talk.pk)[:3] == ["Question 1", "Answer 1.", "In parts"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "invalid_parts")),
        ({"prompt": ""}, (400, "invalid_parts")),
        ({"prompt": None}, (400, "invalid_parts")),
        ({"prompt": "a", "parts": [{"type": "text", "text": "b"}]}, (400, "invalid_parts")),
        ({"parts": []}, (400, "invalid_parts")),
        ({"parts": [{"type": "tool-x"}]}, (400, "invalid_parts")),
        ({"parts": "text"}, (400, "invalid")),
        ({"prompt": {"text": "a"}}, (400, "invalid")),
        ({"prompt": "a", "metadata": []}, (400, "invalid")),
        ([], (400, "invalid")),
        ("{", (400, "parse_error")),
        ({"prompt": "a" * 32_001}, (413, "too_large")),
    ],
)
def test_an_edit_that_says_nothing_good_is_refused(api, talk, body, expected):
    """And what was said stays."""
    before = list(Message.objects.order_by("pk").values())
    assert problem(api.send("PUT", f"threads/{talk.pk}/messages/q1/", body)) == expected
    assert list(Message.objects.order_by("pk").values()) == before


def test_only_what_a_user_said_is_edited(api, talk):
    """Nobody puts words into the model's mouth."""
    path = f"threads/{talk.pk}/messages/{answer_ids(api, talk.pk)[0]}/"
    assert problem(api.send("PUT", path, {"prompt": "I never said that"})) == (400, "invalid_parts")


def test_fields_that_are_not_the_clients_are_ignored(api, talk):
    """An edit stays what a user said in this thread."""
    forged = {"role": "system", "position": 99, "client_id": "x", "id": "x", "thread": "x", "superseded_at": None}
    told = api.send("PUT", f"threads/{talk.pk}/messages/q1/", {"prompt": "Hi", **forged}).json()
    assert (told["id"], told["role"], told["client_id"]) == ("q1", "user", "q1")
    assert told["position"] < 99


@pytest.mark.parametrize("slash", ["/", ""])
@pytest.mark.parametrize("body", [None, {}, {"message_id": None}])
def test_the_last_answer_is_made_anew(api, talk, worker, body, slash):
    """It begins empty."""
    old = answer_ids(api, talk.pk)[1]
    response = api.post(f"threads/{talk.client_id}/regenerate{slash}", body)
    told = response.json()
    assert (response.status_code, told["role"], told["parts"]) == (202, "assistant", [])
    assert told["id"] != old
    worker.answer("A better answer.")
    assert texts(api, talk.pk) == ["Question 1", "Answer 1.", "Question 2", "A better answer."]
    assert answer_ids(api, talk.pk)[1] == told["id"]


def test_an_earlier_answer_is_made_anew(api, talk, worker):
    """What was said after it is gone; its question names it as well."""
    first = answer_ids(api, talk.pk)[0]
    assert api.post(f"threads/{talk.pk}/regenerate/", {"message_id": first}).status_code == 202
    worker.answer("Better.")
    assert api.post(f"threads/{talk.pk}/regenerate/", {"message_id": "q1"}).status_code == 202
    worker.answer("Best.")
    assert texts(api, talk.pk) == ["Question 1", "Best."]


def test_where_nothing_was_asked_there_is_nothing_to_answer(api, agent, me):
    """A thread may be empty."""
    thread = create_thread(agent, owner=me)
    assert problem(api.post(f"threads/{thread.pk}/regenerate/")) == (404, "message_not_found")


@pytest.mark.parametrize("slash", ["/", ""])
def test_a_fork_has_what_was_said(api, talk, worker, slash):
    """And goes on by itself."""
    response = api.post(f"threads/{talk.client_id}/fork{slash}")
    told = response.json()
    assert (response.status_code, told["status"], told["title"]) == (201, "completed", "Talk")
    assert told["id"] != str(talk.pk)
    assert told["client_id"] is None
    assert texts(api, told["id"]) == texts(api, talk.pk)
    assert (told["usage"]["total_tokens"], talk.pk) == (0, Thread.objects.get(pk=told["id"]).forked_from_id)
    api.post(f"threads/{told['id']}/messages/", {"prompt": "Only here"})
    assert "Only here" not in texts(api, talk.pk)


def test_a_fork_may_end_earlier(api, talk):
    """With a message that is named; that one is in it."""
    told = api.post(f"threads/{talk.pk}/fork/", {"at": "q2"}).json()
    assert texts(api, told["id"]) == ["Question 1", "Answer 1.", "Question 2"]


class Shared:
    """Everybody sees every thread; each makes their own, in a place of their own."""

    def filter(self, queryset, request):
        """Return every thread."""
        return queryset

    def allows(self, request, action, **_):
        """Allow everything."""
        return True

    def owner_and_scope(self, request):
        """Return the caller, and a scope of theirs; guests own nothing."""
        user = request.user
        return (user, f"of-{user.pk}") if user.is_authenticated else (None, "guests")

    def context(self, request):
        """Return what is known of the caller."""
        return {"caller": str(request.user.pk)}


def test_a_fork_belongs_to_the_caller(agent, talk, settings):
    """Owner, scope and trusted context are the caller's, and nothing of the other owner's goes along."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.Shared"}
    other = person("other")
    forged = {"owner": str(talk.owner_id), "scope": "x", "context": {"caller": "me"}}
    fork = Thread.objects.get(pk=Api(other).post(f"threads/{talk.pk}/fork/", forged).json()["id"])
    assert (fork.owner, fork.scope, fork.context) == (other, f"of-{other.pk}", {"caller": str(other.pk)})


def test_a_fork_of_a_guest_belongs_to_nobody(agent, talk, settings):
    """And not to the owner of what was forked."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.Shared"}
    fork = Thread.objects.get(pk=Api().post(f"threads/{talk.pk}/fork/").json()["id"])
    assert (fork.owner, fork.scope) == (None, "guests")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "messages/{}/", {"prompt": "Hi"}),
        ("POST", "regenerate/", {"message_id": "{}"}),
        ("POST", "fork/", {"at": "{}"}),
    ],
)
class TestNamedMessages:
    """What edit, regenerate and fork have in common."""

    def send(self, api, thread, method, path, body, message_id):
        """Send the request with this message."""
        filled = {name: value.format(message_id) for name, value in body.items()}
        return api.send(method, f"threads/{thread.pk}/" + path.format(message_id), filled)

    @pytest.mark.parametrize(
        "message_id", ["nothing", "0e1a53f6-2d4b-4f53-9a3c-5e6b7c8d9e0f", "q1 ", "%", "x" * 300, "🐳"]
    )
    def test_an_unknown_message_is_not_found(self, api, talk, method, path, body, message_id):
        """Whatever its id is made of."""
        assert problem(self.send(api, talk, method, path, body, message_id)) == (404, "message_not_found")

    def test_a_message_of_another_thread_is_not_found(self, api, agent, me, talk, worker, method, path, body):
        """Also where it is one's own."""
        other = create_thread(agent, owner=me, prompt="Elsewhere")
        worker.answer()
        message = Message.objects.get(thread=other, role="user")
        assert problem(self.send(api, talk, method, path, body, message.pk)) == (404, "message_not_found")

    def test_a_message_that_was_edited_away_is_not_found(self, api, talk, worker, method, path, body):
        """By the id of its row."""
        message = Message.objects.get(client_id="q2")
        api.send("PUT", f"threads/{talk.pk}/messages/q1/", {"prompt": "Hi"})
        worker.answer()
        assert problem(self.send(api, talk, method, path, body, message.pk)) == (404, "message_not_found")

    def test_a_busy_thread_is_left_alone(self, api, busy, method, path, body):
        """It says so, and its run goes on."""
        message = Message.objects.get(thread=busy, role="user")
        assert problem(self.send(api, busy, method, path, body, message.pk)) == (409, "thread_busy")
        assert Thread.objects.get(pk=busy.pk).is_running
        assert Thread.objects.count() == 1

    def test_the_id_of_its_row_names_a_message_too(self, api, talk, method, path, body):
        """Where the client gave it one of its own."""
        message = Message.objects.get(client_id="q2")
        assert self.send(api, talk, method, path, body, message.pk).status_code in {201, 202}


@pytest.mark.parametrize(("path", "name"), [("regenerate/", "message_id"), ("fork/", "at")])
@pytest.mark.parametrize("value", [[], {}, True, "", "a\x00b"])
def test_an_id_that_cannot_be_one_is_refused(api, talk, path, name, value):
    """With its field."""
    response = api.post(f"threads/{talk.pk}/{path}", {name: value})
    assert problem(response) == (400, "invalid")
    assert name in response.json()["detail"]
