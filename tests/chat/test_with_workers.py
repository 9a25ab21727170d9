"""With real worker processes: what is written by one process is told by another while it is written, and a worker that
is killed takes nothing away."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from django.conf import settings

from durable_agents.models import Stream, Thread
from tests.chat.client import Chatter
from tests.chat.screen import Screen
from tests.crash.talk import words
from tests.servers.model import Call, Hold, ModelUnderTest, Reply
from tests.workers import Cluster, holder_of, running, until

CHAT = "chat/talker"
TOOLS = "chat/toolbox"


@pytest.fixture
def cluster(worker_env: dict[str, str], model_server: ModelUnderTest) -> Iterator[Cluster]:
    """Return a cluster of ready workers whose model is the one of the test."""
    with running(worker_env, workers=2, TEST_MODEL_URL=model_server.url) as started:
        yield started


def test_an_answer_is_told_while_it_is_written(me: Chatter, cluster: Cluster, model_server: ModelUnderTest):
    """With a tool and its outcome; in many pieces, as it is said."""
    story = words(40)
    calls = (Call(name="add", arguments={"a": 1, "b": 2}),)
    model_server.answer_with(Reply(text="Let me.", calls=calls), Reply(text=story, delay_seconds=0.05))
    body = me.say("1 + 2?", path=TOOLS).ended(seconds=40)
    screen = Screen().take(body.chunks)
    assert (screen.text, screen.tool()["output"]) == (f"Let me.{story}", 3)
    assert body.kinds.count("text-delta") > 8
    assert screen.end["finishReason"] == "stop"


def test_the_first_words_are_told_before_the_last_are_written(me: Chatter, cluster: Cluster, model_server):
    """The model is held in the middle of its answer until the client has seen the beginning."""
    gate = threading.Event()
    model_server.answer_with(Hold(reply=Reply(text="One two three."), after=2, gate=gate))
    body = me.say("Hello?", path=CHAT).until("text-delta", seconds=40)
    assert "finish" not in body.kinds
    gate.set()
    assert Screen().take(body.ended(seconds=40).chunks).text == "One two three."


@pytest.mark.parametrize("major", ["7", "6"])
def test_a_worker_that_is_killed_in_the_middle(me: Chatter, cluster: Cluster, model_server: ModelUnderTest, major: str):
    """A client of 7 is told to take back the attempt; one of 6 loses the response, without an end, and begins anew."""
    story = words(60)
    model_server.answer_with(Reply(text=story, delay_seconds=0.05), Reply(text=story, delay_seconds=0.01))
    body = me.post(
        {"id": "c1", "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "A story."}]}]},
        path=CHAT,
        X_AI_SDK_Version=f"{major}.0.1",
    )
    body.until("text-delta", seconds=40)
    os.kill(holder_of(Thread.objects.get()), signal.SIGKILL)
    body.ended(seconds=40)
    if major == "7":
        assert "reset-step" in body.kinds
        assert Screen(knows_7=True).take(body.chunks).text == story
        return
    assert (body.is_done, "finish" in body.kinds, "reset-step" in body.kinds) == (False, False, False)
    again = me.resume(X_AI_SDK_Version="6").ended(seconds=40)
    assert Screen().take(again.chunks).text == story
    assert again.only("start")["messageId"] == body.only("start")["messageId"]


def test_a_stop_ends_the_response_at_once(me: Chatter, cluster: Cluster, model_server: ModelUnderTest):
    """The text so far is closed and kept. Nobody waits for the model, which says nothing more before that."""
    gate = threading.Event()
    model_server.answer_with(Hold(reply=Reply(text=words(40)), after=5, gate=gate))
    body = me.say("A story.", path=CHAT).until("text-delta", seconds=40)
    assert me.stop().json() == {"status": "stopped"}
    screen = Screen().take(body.ended(seconds=40).chunks)
    gate.set()
    assert screen.end == {"type": "abort"}
    until(lambda: Stream.objects.get().text == screen.text, what=lambda: str((Stream.objects.get().text, screen.text)))


@pytest.mark.skipif(settings.CHANNEL_LAYERS["default"]["BACKEND"].endswith("InMemoryChannelLayer"), reason="no Redis")
def test_hints_come_over_the_channel_layer(me: Chatter, cluster: Cluster, model_server: ModelUnderTest):
    """Looks without one are five seconds apart: by them the story would be told in one piece, when it is over."""
    model_server.answer_with(Reply(text=words(40), delay_seconds=0.05))
    body = me.say("A story.", path=CHAT).ended(seconds=40)
    assert body.kinds.count("text-delta") > 5
