"""Threads over REST: created once, found again, changed only in what is the client's."""

from datetime import timedelta
from decimal import Decimal

import pytest

from durable_agents import create_thread, lifecycle
from durable_agents.exceptions import ErrorKind
from durable_agents.lifecycle import FailedAttempt
from durable_agents.llm import ModelUsage
from durable_agents.models import Message, Thread
from tests.api.calls import all_pages, problem
from tests.lifecycle.stage import outcome

pytestmark = pytest.mark.django_db

FIELDS = {
    "id",
    "client_id",
    "agent",
    "title",
    "status",
    "rev",
    "created_at",
    "updated_at",
    "archived",
    "metadata",
    "retry",
    "error",
    "read_only",
    "usage",
    "active_stream",
    "is_running",
}


def test_an_empty_thread_is_created_at_rest(api, agent):
    """Exactly the fields of the contract, and nothing runs."""
    response = api.post("threads/", {"agent": "tested"})
    body = response.json()
    assert response.status_code == 201
    assert set(body) == FIELDS
    assert (body["status"], body["is_running"], body["active_stream"], body["error"]) == (
        "completed",
        False,
        None,
        None,
    )
    assert body["usage"] == {
        "input_tokens": 0,
        "output_tokens": 0,
        "cached_input_tokens": 0,
        "total_tokens": 0,
        "cost": None,
    }


def test_a_thread_with_a_prompt_runs(api, agent, me):
    """Its first message is stored, and a stream is due."""
    body = api.post("threads/", {"agent": "tested", "prompt": "Hi", "title": "T", "metadata": {"a": [1]}}).json()
    assert (body["title"], body["metadata"], body["status"], body["is_running"]) == ("T", {"a": [1]}, "streaming", True)
    assert body["active_stream"]["number"] == 1
    thread = Thread.objects.get(pk=body["id"])
    assert thread.owner == me
    assert Message.objects.filter(thread=thread).order_by("position").first().text == "Hi"


def test_a_thread_may_begin_with_parts(api, agent):
    """The other way to say something."""
    body = api.post("threads/", {"agent": "tested", "parts": [{"type": "text", "text": "Hi"}]}).json()
    assert body["is_running"]


def test_the_same_client_id_again_gives_back_the_thread(api, agent):
    """A repeated request creates nothing and says nothing twice."""
    first = api.post("threads/", {"agent": "tested", "client_id": "mine", "prompt": "Hi"})
    again = api.post("threads/", {"agent": "tested", "client_id": "mine", "prompt": "Hi"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert Message.objects.filter(role="user").count() == 1


def test_two_people_may_use_the_same_client_id(api, stranger, agent):
    """It belongs to its owner."""
    mine = api.post("threads/", {"agent": "tested", "client_id": "same"})
    theirs = stranger.post("threads/", {"agent": "tested", "client_id": "same"})
    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert mine.json()["id"] != theirs.json()["id"]
    assert stranger.get("threads/same/").json()["id"] == theirs.json()["id"]


def test_a_thread_answers_to_its_client_id(api, agent):
    """Wherever a path names a thread."""
    made = api.post("threads/", {"agent": "tested", "client_id": "chat-1", "prompt": "Hi"}).json()
    assert api.get("threads/chat-1/").json()["id"] == made["id"]
    assert api.get("threads/chat-1/messages/").status_code == 200
    assert api.post("threads/chat-1/stop/").json()["status"] == "stopped"


def test_the_list_has_my_threads_with_the_last_changed_first(api, stranger, agent):
    """And nobody else's."""
    first, second = (api.post("threads/", {"agent": "tested"}).json()["id"] for _ in range(2))
    stranger.post("threads/", {"agent": "tested"})
    api.patch(f"threads/{first}/", {"title": "newer"})
    assert [row["id"] for row in all_pages(api, "threads/")] == [first, second]


def test_pages_follow_each_other_forth_and_back(api, agent, me):
    """Every thread once, in order, also where many changed at the same moment."""
    made = [create_thread(agent, owner=me) for _ in range(7)]
    Thread.objects.exclude(pk=made[5].pk).update(updated_at=made[5].updated_at)
    Thread.objects.filter(pk=made[3].pk).update(updated_at=made[5].updated_at + timedelta(hours=1))
    whole = [row["id"] for row in api.get("threads/").json()["results"]]
    first = api.get("threads/", limit=3).json()
    second = api.follow(first["next"]).json()
    third = api.follow(second["next"]).json()
    seen = [row["id"] for page in (first, second, third) for row in page["results"]]
    assert seen == whole
    assert whole[0] == str(made[3].pk)
    assert (first["previous"], third["next"]) == (None, None)
    assert api.follow(third["previous"]).json()["results"] == second["results"]


@pytest.mark.parametrize(("asked", "got"), [({}, 50), ({"limit": 2}, 2), ({"limit": 1000}, 200), ({"limit": "x"}, 50)])
def test_a_page_has_fifty_rows_or_as_many_as_asked_up_to_two_hundred(api, agent, me, asked, got):
    """The limit is the server's."""
    Thread.objects.bulk_create(Thread(agent="tested", owner=me) for _ in range(201))
    assert len(api.get("threads/", **asked).json()["results"]) == got


@pytest.mark.parametrize(
    ("asked", "titles"),
    [
        ({}, {"Old plans", "New PLANS", "Other"}),
        ({"status": "streaming"}, {"New PLANS"}),
        ({"archived": "true"}, {"Old plans"}),
        ({"archived": "0"}, {"New PLANS", "Other"}),
        ({"search": "plans"}, {"Old plans", "New PLANS"}),
        ({"search": "%"}, set()),
        ({"agent": "tested"}, {"Old plans", "New PLANS", "Other"}),
        ({"agent": "nobody"}, set()),
        ({"agent": "", "status": "", "archived": "", "search": ""}, {"Old plans", "New PLANS", "Other"}),
        ({"search": "plans", "archived": "false", "status": "streaming"}, {"New PLANS"}),
    ],
)
def test_filters_narrow_the_list(api, agent, me, asked, titles):
    """Each alone, together, and not at all where nothing is given."""
    lifecycle.update_thread(create_thread(agent, owner=me, title="Old plans"), archived=True)
    create_thread(agent, owner=me, title="New PLANS", prompt="Hi")
    create_thread(agent, owner=me, title="Other")
    assert {row["title"] for row in api.get("threads/", **asked).json()["results"]} == titles


def test_title_metadata_and_archiving_are_the_clients_to_change(api, agent):
    """Each alone leaves the others as they are."""
    path = "threads/{id}/".format(**api.post("threads/", {"agent": "tested", "title": "A"}).json())
    changed = api.patch(path, {"archived": True})
    assert (changed.status_code, changed.json()["archived"], changed.json()["title"]) == (200, True, "A")
    api.patch(path, {"metadata": {"colour": "red"}})
    api.patch(path, {"title": ""})
    after = api.get(path).json()
    assert (after["archived"], after["title"], after["metadata"]) == (True, "", {"colour": "red"})
    assert api.patch(path, {}).json() == after


@pytest.mark.parametrize("archived", [1, "true", "yes", None, []])
def test_a_flag_in_a_body_is_true_or_false(api, agent, archived):
    """Other words for it are for addresses, where all is text."""
    path = "threads/{id}/".format(**api.post("threads/", {"agent": "tested"}).json())
    assert problem(api.patch(path, {"archived": archived})) == (400, "invalid")


def test_what_is_not_the_clients_is_ignored(api, agent, me):
    """Nobody writes owner, status, scope, trusted context, usage or error."""
    forged = {"owner": 1, "status": "failed", "scope": "x", "context": {"admin": True}, "cost": "9", "rev": 99}
    made = api.post("threads/", {"agent": "tested", **forged}).json()
    api.patch(f"threads/{made['id']}/", {"title": "T", "agent": "other", **forged})
    thread = Thread.objects.get(pk=made["id"])
    assert (thread.owner, thread.status, thread.scope, thread.context) == (me, "completed", "", {})
    assert (thread.agent, thread.cost, thread.title) == ("tested", None, "T")
    assert thread.rev < 99


def test_a_deleted_thread_is_gone_with_what_it_had(api, agent, worker):
    """Also while a run is on."""
    made = api.post("threads/", {"agent": "tested", "prompt": "Hi"}).json()
    worker.say(worker.claim_step(), "Hel")
    response = api.delete(f"threads/{made['id']}/")
    assert (response.status_code, response.content) == (204, b"")
    assert problem(api.get(f"threads/{made['id']}/")) == (404, "thread_not_found")
    assert not Message.objects.exists()


def test_usage_and_cost_are_told(api, agent, me, worker):
    """Counts, and a cost that is a decimal in text."""
    thread = create_thread(agent, owner=me, prompt="Hi")
    used = ModelUsage(input_tokens=10, output_tokens=5, cached_input_tokens=4, cost=Decimal("0.00012"))
    lifecycle.commit_step(worker.claim_step(), outcome("Hello.", usage=used))
    usage = api.get(f"threads/{thread.pk}/").json()["usage"]
    assert usage.pop("cost").rstrip("0") == "0.00012"
    assert usage == {"input_tokens": 10, "output_tokens": 5, "cached_input_tokens": 4, "total_tokens": 15}


def test_a_wait_for_another_attempt_is_told(api, agent, me, worker):
    """With what went wrong, in words that give nothing away."""
    thread = create_thread(agent, owner=me, prompt="Hi")
    claim = worker.claim_step()
    ended = FailedAttempt(kind=ErrorKind.NETWORK, detail="secret host")
    lifecycle.retry_step(claim, ended, delay_seconds=5, max_attempts=4)
    body = api.get(f"threads/{thread.pk}/").json()
    assert set(body["retry"]) == {"scope", "attempt", "max_attempts", "next_retry_at", "error", "kind", "retryable"}
    assert (body["retry"]["attempt"], body["retry"]["kind"]) == (2, "network")
    assert body["active_stream"]["number"] == 2
    assert "secret" not in str(body)


def test_a_failure_is_told_by_its_kind(api, agent, me, worker):
    """The details stay inside."""
    thread = create_thread(agent, owner=me, prompt="Hi")
    lifecycle.fail_step(worker.claim_step(), FailedAttempt(kind=ErrorKind.AUTH, detail="key sk-123 is wrong"))
    body = api.get(f"threads/{thread.pk}/").json()
    assert (body["status"], body["error"]["code"], body["active_stream"]) == ("failed", "auth", None)
    assert "sk-123" not in str(body)


def test_times_are_in_iso_format(api, agent):
    """Whatever the project's own API does."""
    body = api.post("threads/", {"agent": "tested"}).json()
    thread = Thread.objects.get()
    assert (body["created_at"], body["updated_at"]) == (thread.created_at.isoformat(), thread.updated_at.isoformat())


@pytest.mark.parametrize("path", ["agents", "threads", "schema"])
def test_paths_answer_without_their_trailing_slash(api, agent, path):
    """Without a redirect, which would lose a body."""
    assert api.get(path).status_code == 200
    assert api.post("threads", {"agent": "tested"}).status_code == 201


def test_public_agents_are_listed_with_their_tools(api, agent, declare):
    """Internal ones are not."""
    declare("hidden", tools=[])
    listed = {row["name"]: row for row in api.get("agents/").json()["results"]}
    assert "hidden" not in listed
    assert set(listed["tested"]) == {"name", "description", "tools"}
    assert listed["tested"]["description"] == "Made for a test."
    assert listed["tested"]["tools"][0] == {
        "name": "plain",
        "description": "Say a word; a worker's death leaves it unknown whether that happened.",
        "kind": "sync",
        "needs_approval": False,
    }


@pytest.mark.parametrize("client_id", ["a/b", ".", ".."])
def test_an_id_that_no_path_reaches_is_refused(api, agent, client_id):
    """It would be another path, or none."""
    made = api.post("threads/", {"agent": "tested", "client_id": client_id})
    assert problem(made) == (400, "invalid_parts")
