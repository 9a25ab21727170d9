"""Following threads: a snapshot or exactly what is missing, then news, and nothing of anybody else's."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.utils import timezone
from rest_framework.authtoken.models import Token

from durable_agents import create_thread, delete_thread, notifications, send_message
from durable_agents.lifecycle import issue_ticket
from durable_agents.models import Delta, Thread
from durable_agents.policies import OwnerPolicy
from tests.lifecycle.stage import calling
from tests.streaming.client import Client
from tests.streaming.truth import truth
from tests.websocket.sockets import act, cookie_of


@pytest.fixture
async def socket(connect):
    """Return an open socket of the user."""
    return await connect()


async def follow(socket, thread, **options):
    """Subscribe, and return the first frame."""
    return await socket.ask(type="subscribe", thread=str(thread.pk), **options)


async def test_a_subscription_begins_with_a_snapshot(socket, thread):
    """Of what is there."""
    await act(send_message, thread, "Hi")
    snapshot = await follow(socket, thread)
    assert (snapshot["type"], snapshot["thread"], snapshot["status"]) == ("snapshot", str(thread.pk), "streaming")
    assert [message["role"] for message in snapshot["messages"]] == ["user", "assistant"]


async def test_a_refused_subscription_is_none(socket, thread):
    """Nothing of the thread follows."""
    refused = await follow(socket, thread, tail="x")
    assert (refused["type"], refused["code"]) == ("error", "invalid_frame")
    await act(send_message, thread, "Hi")
    await socket.tell(type="ping", t=1)
    assert (await socket.hear())["type"] == "pong"


async def test_a_thread_of_somebody_else_is_as_unknown_as_one_that_is_not(socket, agent):
    """For every frame that names a thread."""
    foreign = await act(create_thread, agent, owner=await act(User.objects.create_user, "bob"), client_id="bobs")
    frames = [
        {"type": "subscribe"},
        {"type": "unsubscribe"},
        {"type": "fill", "stream": str(uuid4()), "from": 0},
        {"type": "older", "before": 1},
        {"type": "send", "prompt": "Hi"},
        {"type": "stop"},
        {"type": "resume"},
        {"type": "tool_result", "tool_call_id": "call_x", "result": 1},
        {"type": "approve", "tool_call_id": "call_x"},
        {"type": "reject", "tool_call_id": "call_x"},
    ]
    for frame in frames:
        answers = [await socket.ask(thread=name, **frame) for name in (str(foreign.pk), "bobs", str(uuid4()))]
        told = [{key: str(answer[key]).replace(answer["thread"], "X") for key in answer} for answer in answers]
        assert told[0] == told[1] == told[2]
        assert answers[0]["code"] == "thread_not_found"
    assert await act(foreign.messages.count) == 0


async def test_superusers_have_their_own_threads_only(connect, thread):
    """Others' are for the admin."""
    admin = await act(User.objects.create_superuser, "root")
    socket = await connect(cookie=await act(cookie_of, admin))
    assert (await follow(socket, thread))["code"] == "thread_not_found"


async def test_a_thread_of_an_internal_agent_is_not_found(socket, declare, user):
    """Though it is the user's own: such an agent is for Python and the admin."""
    thread = await act(create_thread, declare("inside"), owner=user)
    assert (await follow(socket, thread))["code"] == "thread_not_found"


async def test_a_thread_may_be_named_by_the_clients_own_id(socket, agent, user):
    """Every frame then carries that name."""
    thread = await act(create_thread, agent, owner=user, client_id="mine")
    assert (await socket.ask(type="subscribe", thread="mine"))["thread"] == "mine"
    await act(send_message, thread, "Hi")
    frames = await socket.hear_status("streaming")
    assert {frame["thread"] for frame in frames} == {"mine"}


async def test_both_names_of_a_thread_are_followed_on_one_socket(delivery, socket, agent, user, worker):
    """Each is a subscription of its own, told everything by its name, and ends alone."""
    thread = await act(create_thread, agent, owner=user, client_id="mine")
    names = [str(thread.pk), "mine"]
    clients = {name: Client().take([await socket.ask(type="subscribe", thread=name)]) for name in names}
    await act(send_message, thread, "Hi")
    claim = await act(worker.claim_step)
    for seq, text in enumerate(("One ", "two")):
        await act(worker.say, claim, text)
        if delivery == "hints":
            await act(published, thread, claim, seq)
    await act(worker.answer, "One two", claim=claim)
    ended = set()
    while ended != set(names):
        frame = await socket.hear()
        clients[frame["thread"]].take([frame])
        ended |= {frame["thread"]} if frame.get("status") == "completed" else set()
    assert [clients[name].shown() for name in names] == [await act(truth, thread)] * 2
    assert (await socket.ask(type="unsubscribe", thread=names[0]))["type"] == "ok"
    await act(send_message, thread, "And?")
    frames = await socket.hear_status("streaming")
    assert {frame["thread"] for frame in frames} == {"mine"}
    assert (await socket.ask(type="unsubscribe", thread="mine"))["type"] == "ok"
    await act(send_message, thread, "And?")
    assert await socket.hears_nothing()


async def test_news_come_without_asking(delivery, socket, thread, worker):
    """Deltas in order, the step, the outcome of its call, and the state of the thread."""
    snapshot = await follow(socket, thread)
    client = Client().take([snapshot])
    await act(send_message, thread, "Hi")
    client.take(await socket.hear_status("streaming"))
    claim = await act(worker.claim_step)
    for text in ("One ", "two ", "three"):
        await act(worker.say, claim, text)
    await act(worker.answer, "One two three", calling(), claim=claim)
    client.take(await socket.hear_status("awaiting_tool_results"))
    await act(worker.settle)
    await act(worker.answer, "Done.")
    frames = await socket.hear_status("completed")
    assert client.take(frames).shown() == await act(truth, thread)


async def test_each_delta_is_told_once_and_in_order(delivery, socket, thread, worker):
    """However the news of it come, and how often."""
    await act(send_message, thread, "Hi")
    await follow(socket, thread)
    claim = await act(worker.claim_step)
    texts = [f"{number} " for number in range(20)]
    for seq, text in enumerate(texts):
        await act(worker.say, claim, text)
        if delivery == "hints":
            await act(published, thread, claim, seq)
    frames = await socket.hear_until(lambda frame: frame["type"] == "delta" and frame["seq"] == len(texts) - 1)
    deltas = [frame for frame in frames if frame["type"] == "delta"]
    assert [frame["seq"] for frame in deltas] == list(range(len(texts)))
    assert await socket.hears_nothing()


def published(thread, claim, seq):
    """Publish a stored delta as a worker does, every third one lost and every fourth one doubled."""
    row = Delta.objects.get(stream_id=claim.row_id, seq=seq)
    facts = {"thread": str(thread.pk), "stream": str(claim.row_id), "message": row.stream.answer.shown_id}
    facts |= {"seq": seq, "chunks": row.chunks}
    for _ in range(0 if seq % 3 == 2 and seq < 19 else 2 if seq % 4 == 0 else 1):
        notifications.publish(thread.pk, {"type": "thread.delta", "frame": {"type": "delta", **facts}})


async def test_two_sockets_see_the_same(delivery, connect, thread, worker):
    """Tabs of one browser, or two devices."""
    sockets = [await connect(), await connect()]
    clients = [Client().take([await follow(socket, thread)]) for socket in sockets]
    await act(send_message, thread, "Hi")
    await act(worker.answer, "Hello.")
    for socket, client in zip(sockets, clients, strict=True):
        client.take(await socket.hear_status("completed"))
    assert clients[0].shown() == clients[1].shown() == await act(truth, thread)


async def test_one_socket_follows_many_threads(delivery, socket, agent, user):
    """Each frame says whose it is."""
    threads = [await act(create_thread, agent, owner=user) for _ in range(3)]
    for thread in threads:
        await follow(socket, thread)
    for thread in threads:
        await act(send_message, thread, "Hi")
    heard = set()
    while heard != {str(thread.pk) for thread in threads}:
        heard.add((await socket.hear())["thread"])


async def test_a_cursor_gets_exactly_what_is_missing(polled, socket, connect, thread, worker):
    """And the thread's state, though nothing is missing."""
    client = Client().take([await follow(socket, thread)])
    await act(send_message, thread, "Hi")
    claim = await act(worker.claim_step)
    await act(worker.say, claim, "One ")
    client.take(await socket.hear_until(lambda frame: frame["type"] == "delta"))
    await socket.leave()
    await act(worker.say, claim, "two")
    cursor = client.cursor
    again = await connect()
    first = await follow(again, thread, cursor={"rev": cursor.rev, "stream": cursor.stream, "seq": cursor.seq})
    assert (first["type"], first["rev"]) == ("resumed", client.rev)
    frames = await again.hear_until(lambda frame: frame["type"] == "thread")
    assert [frame["seq"] for frame in frames if frame["type"] == "delta"] == [1]
    assert client.take(frames).shown() == await act(truth, thread)


async def test_a_cursor_that_cannot_be_served_gets_a_snapshot(socket, thread):
    """As no cursor does."""
    await act(send_message, thread, "Hi")
    for rev in (0, -1, 10**9):
        cursor = {"rev": rev, "stream": None, "seq": None}
        assert (await follow(socket, thread, cursor=cursor))["type"] == "snapshot"


async def test_a_thread_that_is_left_is_not_followed(delivery, socket, thread):
    """The socket stays open for others."""
    await follow(socket, thread)
    assert (await socket.ask(type="unsubscribe", thread=str(thread.pk)))["type"] == "ok"
    await act(send_message, thread, "Hi")
    assert await socket.hears_nothing()


async def test_a_deleted_thread_is_told_to_be_gone(delivery, socket, thread):
    """Its subscription ends; the socket stays open."""
    await follow(socket, thread)
    await act(send_message, thread, "Hi")
    await socket.hear_status("streaming")
    await act(delete_thread, thread)
    frame = await socket.hear()
    assert (frame["type"], frame["code"], frame["thread"]) == ("error", "thread_not_found", str(thread.pk))
    assert await socket.hears_nothing()


async def test_a_socket_follows_only_so_many_threads(socket, agent, user, settings):
    """The same one again is not one more."""
    settings.DURABLE_AGENTS = {"MAX_SUBSCRIPTIONS": 2}
    threads = [await act(create_thread, agent, owner=user) for _ in range(3)]
    answers = [await follow(socket, thread) for thread in [*threads, threads[0]]]
    assert [answer["type"] for answer in answers] == ["snapshot", "snapshot", "error", "snapshot"]
    assert answers[2]["code"] == "too_many_subscriptions"


async def test_a_gap_is_filled(socket, thread, worker):
    """From stored deltas, until they are gone."""
    await act(send_message, thread, "Hi")
    claim = await act(worker.claim_step)
    await act(worker.say, claim, "a", "b", "c")
    asked = {"type": "fill", "thread": str(thread.pk), "stream": str(claim.row_id), "from": 1}
    answer = await socket.ask(**asked)
    assert (answer["type"], [delta["seq"] for delta in answer["deltas"]]) == ("deltas", [1, 2])
    assert [delta["seq"] for delta in (await socket.ask(**asked, to=1))["deltas"]] == [1]
    await act(Delta.objects.all().delete)
    assert (await socket.ask(**asked))["type"] == "reset"


async def test_older_messages_come_in_pages(socket, thread, worker):
    """Before the ones that are shown."""
    for text in ("One", "Two"):
        await act(send_message, thread, text)
        await act(worker.answer, text)
    snapshot = await follow(socket, thread, tail=1)
    assert ([message["position"] for message in snapshot["messages"]], snapshot["hasOlder"]) == ([4], True)
    page = await socket.ask(type="older", thread=str(thread.pk), before=4, limit=2)
    assert ([message["position"] for message in page["messages"]], page["hasOlder"]) == ([2, 3], True)
    page = await socket.ask(type="older", thread=str(thread.pk), before=2)
    assert ([message["position"] for message in page["messages"]], page["hasOlder"]) == ([1], False)


async def test_the_steps_that_a_snapshot_leaves_out_are_fetched(socket, thread, worker, monkeypatch):
    """As older messages are: the page ends with them."""
    monkeypatch.setattr("durable_agents.live.reader.REPLY_BYTES", 1000)
    await act(send_message, thread, "Hi")
    for text in ("One ", "Two "):
        await act(worker.answer, text * 100, calling())
        await act(worker.settle)
    await act(worker.answer, "Done.")
    client = Client().take([await follow(socket, thread)])
    while client.has_older:
        client.take([await socket.ask(type="older", thread=str(thread.pk), **client.lacks)])
    assert client.shown() == await act(truth, thread)
    refused = await socket.ask(type="older", thread=str(thread.pk), before=2, steps="all")
    assert refused["code"] == "invalid_frame"


async def test_a_run_goes_on_when_nobody_watches(connect, thread, worker):
    """A closed page is not a stop."""
    socket = await connect()
    await follow(socket, thread)
    await act(send_message, thread, "Hi")
    await socket.leave()
    await act(worker.answer, "Hello.")
    assert (await act(Thread.objects.get, pk=thread.pk)).status == "completed"


@pytest.fixture
def _asks_again_at_once(monkeypatch):
    """Let sockets ask often whether all may still be seen."""
    monkeypatch.setattr("durable_agents.live.socket_checks.RECHECK_SECONDS", 0.05)


class ListedPolicy(OwnerPolicy):
    """Shows own threads, but for those whose title says no."""

    def filter(self, queryset, request):
        """Return the others."""
        return super().filter(queryset, request).exclude(title="closed")


@pytest.mark.usefixtures("_asks_again_at_once")
async def test_a_thread_that_may_not_be_seen_any_more_is_not_followed(socket, agent, user, settings):
    """Others are, on the same socket."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.ListedPolicy"}
    thread, other = [await act(create_thread, agent, owner=user) for _ in range(2)]
    for followed in (thread, other):
        await follow(socket, followed)
    await act(Thread.objects.filter(pk=thread.pk).update, title="closed")
    [*_, gone] = await socket.hear_until(lambda frame: frame["type"] == "error")
    assert (gone["thread"], gone["code"]) == (str(thread.pk), "thread_not_found")
    await act(send_message, thread, "Secret")
    await act(send_message, other, "Hi")
    frames = await socket.hear_status("streaming")
    assert {frame["thread"] for frame in frames} == {str(other.pk)}


def set_password(user):
    """Let the user have another password."""
    user.set_password("another")
    user.save()


def expire_sessions():
    """Let every session run out; the rows stay until somebody clears them."""
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))


def change_sessions_user():
    """Let somebody else be signed in by the same session."""
    [row] = Session.objects.all()
    session = SessionStore(row.session_key)
    session[SESSION_KEY] = str(User.objects.create_user("bob").pk)
    session.save()


ENDS = {
    "locked out": lambda user: User.objects.filter(pk=user.pk).update(is_active=False),
    "deleted": lambda user: user.delete(),
    "signed out": lambda user: Session.objects.all().delete(),
    "expired": lambda user: expire_sessions(),
    "another password": set_password,
    "another user": lambda user: change_sessions_user(),
}


@pytest.mark.usefixtures("_asks_again_at_once")
@pytest.mark.parametrize("ended", ENDS)
async def test_a_socket_does_not_outlive_its_user(connect, user, ended):
    """Nor the session that it came with."""
    socket = await connect()
    assert (await socket.ask(type="ping", id=None, t=1))["type"] == "pong"
    assert not await ends_within(socket, 0.3)
    await act(ENDS[ended], user)
    assert await socket.close_code() == 4401


async def ends_within(socket, seconds):
    """Return whether the socket is closed, or told anything, within so many seconds."""
    return not await socket.hears_nothing(seconds)


@pytest.mark.usefixtures("_asks_again_at_once")
async def test_a_socket_does_not_outlive_its_token(connect, user):
    """A password is something else."""
    token = await act(Token.objects.create, user=user)
    socket = await connect(origin=None, cookie=None, headers={"authorization": f"Token {token.key}"})
    await act(set_password, user)
    assert not await ends_within(socket, 0.3)
    await act(token.delete)
    assert await socket.close_code() == 4401


@pytest.mark.usefixtures("_asks_again_at_once")
async def test_a_socket_that_came_by_a_ticket_does_not_outlive_the_password(connect, user):
    """Nobody knows any more with what the ticket was fetched."""
    socket = await connect(cookie=None)
    await socket.tell(type="hello", ticket=await act(issue_ticket, user))
    assert (await socket.hear())["type"] == "welcome"
    assert not await ends_within(socket, 0.3)
    await act(set_password, user)
    assert await socket.close_code() == 4401


@pytest.mark.usefixtures("_asks_again_at_once")
async def test_a_ticket_of_another_user_is_good_beside_a_session(connect, agent, user):
    """The session goes on; that it names somebody else is no reason to close."""
    other = await act(User.objects.create_user, "bob")
    theirs = await act(create_thread, agent, owner=other)
    socket = await connect()
    await socket.tell(type="hello", ticket=await act(issue_ticket, other))
    assert (await socket.hear())["user"] == "bob"
    assert not await ends_within(socket, 0.3)
    assert (await follow(socket, theirs))["type"] == "snapshot"


@pytest.mark.usefixtures("_asks_again_at_once")
async def test_sessions_that_are_not_stored_end_with_the_password(connect, user, settings):
    """A signed cookie is all that there is of them."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    socket = await connect(cookie=await act(cookie_of, user))
    assert (await socket.ask(type="ping", id=None, t=1))["type"] == "pong"
    assert not await ends_within(socket, 0.3)
    await act(set_password, user)
    assert await socket.close_code() == 4401


class StaffPolicy(OwnerPolicy):
    """Shows threads to the staff only."""

    def filter(self, queryset, request):
        """Return the user's, or none."""
        return super().filter(queryset, request) if request.user.is_staff else queryset.none()


@pytest.mark.usefixtures("_asks_again_at_once")
async def test_the_policy_is_shown_the_user_as_they_are_now(connect, thread, user, settings):
    """Not as they were when the socket was opened."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.StaffPolicy"}
    await act(User.objects.filter(pk=user.pk).update, is_staff=True)
    socket = await connect()
    assert (await follow(socket, thread))["type"] == "snapshot"
    await act(User.objects.filter(pk=user.pk).update, is_staff=False)
    [*_, gone] = await socket.hear_until(lambda frame: frame["type"] == "error")
    assert gone["code"] == "thread_not_found"
