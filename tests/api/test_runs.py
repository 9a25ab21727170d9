"""Stop, resume and tool calls over REST."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from durable_agents import create_thread, stop_thread
from durable_agents.models import ToolCall
from tests.api.calls import all_pages, problem
from tests.lifecycle.stage import calling

pytestmark = pytest.mark.django_db

CALL_FIELDS = {
    "tool_call_id",
    "tool_name",
    "kind",
    "arguments",
    "approved_arguments",
    "status",
    "result",
    "error",
    "answered_by_user",
    "progress",
    "attempt",
    "max_attempts",
    "expires_at",
    "created_at",
    "approval",
}


@pytest.fixture
def thread(agent, me):
    """Return a thread with one question."""
    return create_thread(agent, owner=me, prompt="Question")


def test_stop_halts_the_run_at_once_and_may_be_repeated(api, thread):
    """The answer is the thread."""
    first = api.post(f"threads/{thread.pk}/stop/")
    again = api.post(f"threads/{thread.pk}/stop/")
    assert (first.status_code, first.json()["status"], first.json()["active_stream"]) == (200, "stopped", None)
    assert again.json() == first.json()


def test_resume_tries_again_what_was_stopped_and_may_be_repeated(api, thread):
    """The answer is the thread."""
    stop_thread(thread)
    first = api.post(f"threads/{thread.pk}/resume/")
    again = api.post(f"threads/{thread.pk}/resume/")
    assert (first.status_code, first.json()["status"]) == (200, "streaming")
    assert again.json() == first.json()


def test_resume_may_say_something(api, thread):
    """An ordinary message of the user's."""
    stop_thread(thread)
    body = api.post(f"threads/{thread.pk}/resume/", {"prompt": "Go on"}).json()
    assert body["is_running"]
    rows = api.get(f"threads/{thread.pk}/messages/").json()["results"]
    assert rows[-1]["parts"] == [{"type": "text", "text": "Go on"}]


def test_a_completed_thread_stays_so_without_a_prompt(api, agent, me):
    """There is nothing to try again."""
    thread = create_thread(agent, owner=me)
    assert api.post(f"threads/{thread.pk}/resume/").json()["status"] == "completed"


def test_bodies_that_say_nothing_are_fine(api, thread):
    """An action needs none."""
    for body in (None, {}, '{"prompt": null}'):
        assert api.post(f"threads/{thread.pk}/stop/", body).status_code == 200
        assert api.post(f"threads/{thread.pk}/resume/", body).status_code == 200


def test_tool_calls_are_listed_in_the_order_in_which_they_were_made(api, thread, worker):
    """With what became of each."""
    worker.answer("", calling("plain", word="a"), calling("again", word="b"))
    worker.settle("done")
    path = f"threads/{thread.pk}/tool-calls/"
    rows = api.get(path).json()["results"]
    assert {frozenset(row) for row in rows} == {frozenset(CALL_FIELDS)}
    assert {row["tool_name"]: row["max_attempts"] for row in rows} == {"plain": 1, "again": 3}
    assert sorted(row["status"] for row in rows) == ["completed", "pending"]
    [done] = api.get(path, status="completed").json()["results"]
    assert (done["kind"], done["result"], done["error"], done["approval"]) == ("sync", "done", None, None)
    assert done["attempt"] == 1
    assert done["expires_at"]
    assert [row["tool_call_id"] for row in all_pages(api, path, limit=1)] == [row["tool_call_id"] for row in rows]
    assert problem(api.get(path, status="x")) == (400, "invalid")


def test_a_failed_call_tells_the_text_for_the_model_only(api, thread, worker):
    """Details are for the admin."""
    worker.answer("", calling())
    ToolCall.objects.update(error_detail="Traceback: secret")
    stop_thread(thread)
    [row] = api.get(f"threads/{thread.pk}/tool-calls/").json()["results"]
    assert row["status"] == "cancelled"
    assert row["error"].startswith("The run was stopped")
    assert "secret" not in str(row)


def test_a_decision_about_a_call_is_told_with_who_made_it(api, thread, worker, me):
    """Null where none was asked for."""
    worker.answer("", calling())
    asked_at = Now() - timedelta(minutes=1)
    ToolCall.objects.update(
        approval_requested_at=asked_at, approval_decided_at=Now(), approval_decided_by=me, approval_reason="fine"
    )
    [row] = api.get(f"threads/{thread.pk}/tool-calls/").json()["results"]
    assert set(row["approval"]) == {"requested_at", "decided_at", "decided_by", "reason", "can_decide"}
    assert (row["approval"]["decided_by"], row["approval"]["reason"]) == (me.get_username(), "fine")
