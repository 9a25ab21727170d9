"""An owner has only so many runs at once; what would begin one more is refused whole."""

import pytest
from django.contrib.auth.models import User

from durable_agents import ThrottledError, create_thread, resume_thread, send_message, stop_thread
from durable_agents.exceptions import TooManyRunningError
from durable_agents.models import Message, Thread
from tests.lifecycle.stage import calling, status_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def me():
    """Return an owner."""
    return User.objects.create_user("me")


@pytest.fixture(autouse=True)
def _two(settings):
    settings.DURABLE_AGENTS = {"MAX_RUNNING_PER_OWNER": 2}


@pytest.fixture
def full(agent, me):
    """Return the two threads of the owner that run."""
    return [create_thread(agent, owner=me, prompt="Hi") for _ in range(2)]


def refused(begin):
    """Call what is refused, and leaves no trace."""
    before = [*Thread.objects.order_by("pk").values(), *Message.objects.order_by("pk").values()]
    with pytest.raises(ThrottledError) as caught:
        begin()
    assert [*Thread.objects.order_by("pk").values(), *Message.objects.order_by("pk").values()] == before
    assert (caught.value.code, caught.value.status_code) == ("too_many_running", 429)
    assert "stop one" in str(caught.value)


def test_a_thread_too_many_is_not_created(agent, me, full):
    """With a prompt, that is; an empty one is at rest."""
    refused(lambda: create_thread(agent, owner=me, prompt="Hi"))
    refused(lambda: create_thread(agent, owner=me, parts=[{"type": "text", "text": "Hi"}]))
    refused(lambda: create_thread(agent, owner=me, messages=[{"role": "user", "content": "Hi"}], start=True))
    assert status_of(create_thread(agent, owner=me)) == "completed"
    assert status_of(create_thread(agent, owner=me, prompt="Later.", start=False)) == "completed"


def test_a_message_to_a_thread_at_rest_is_refused(agent, me, full):
    """It may be sent again once another run is over."""
    resting = create_thread(agent, owner=me)
    refused(lambda: send_message(resting, "Hi", client_id="m1"))
    stop_thread(full[0])
    assert send_message(resting, "Hi", client_id="m1").client_id == "m1"
    assert status_of(resting) == "streaming"


@pytest.mark.parametrize("prompt", [None, "Go on."])
def test_a_resume_of_a_stopped_thread_is_refused(agent, me, full, prompt):
    """Stopped, it gave its place away."""
    stop_thread(full[0])
    create_thread(agent, owner=me, prompt="Hi")
    refused(lambda: resume_thread(full[0], prompt))
    assert status_of(full[0]) == "stopped"


def test_a_failed_thread_gave_its_place_away(agent, me, full, worker):
    """And needs a new one to be tried again."""
    [claim] = [claim for claim in worker.claim() if claim.thread_id == full[0].pk]
    worker.fail(claim)
    create_thread(agent, owner=me, prompt="Hi")
    refused(lambda: resume_thread(full[0]))


def test_steering_a_run_is_no_new_run(full, worker):
    """Nor is going on after a tool call, which keeps its place while it waits."""
    send_message(full[0], "And quickly.")
    claims = {claim.thread_id: claim for claim in worker.claim()}
    worker.answer("Let me see.", calling(), claim=claims[full[0].pk])
    assert status_of(full[0]) == "awaiting_tool_results"
    worker.settle()
    assert status_of(full[0]) == "streaming"


@pytest.mark.parametrize("when_busy", ["interrupt", "queue"])
def test_a_run_that_gives_way_to_the_next_keeps_its_place(declare, me, worker, when_busy):
    """Whether the new message ends it or waits for its end."""
    agent = declare(when_busy=when_busy)
    thread, _ = [create_thread(agent, owner=me, prompt="Hi") for _ in range(2)]
    claims = {claim.thread_id: claim for claim in worker.claim()}
    send_message(thread, "Something else.")
    if when_busy == "queue":
        worker.answer(claim=claims[thread.pk])
    assert status_of(thread) == "streaming"


def test_what_is_known_already_is_given_back(agent, me, full):
    """A repeated request begins nothing."""
    sent = send_message(full[0], "Hi", client_id="m1")
    assert send_message(full[0], "Hi", client_id="m1") == sent
    Thread.objects.filter(pk=full[0].pk).update(client_id="t1")
    assert create_thread(agent, owner=me, client_id="t1", prompt="Hi") == full[0]


def test_others_have_places_of_their_own(agent, full):
    """By owner, and where there is none by scope; threads with neither are not counted."""
    create_thread(agent, owner=User.objects.create_user("you"), prompt="Hi")
    for scope in ("shop", "club"):
        for _ in range(2):
            create_thread(agent, scope=scope, prompt="Hi")
        with pytest.raises(TooManyRunningError):
            create_thread(agent, scope=scope, prompt="Hi")
    for _ in range(3):
        create_thread(agent, prompt="Hi")


def test_an_owner_has_one_limit_in_all_scopes(agent, me, full):
    """A scope is where a thread belongs, not whose it is."""
    refused(lambda: create_thread(agent, owner=me, scope="shop", prompt="Hi"))


def test_without_the_setting_there_is_no_limit(agent, me, full, settings):
    """It is off by default."""
    settings.DURABLE_AGENTS = {}
    assert status_of(create_thread(agent, owner=me, prompt="Hi")) == "streaming"
