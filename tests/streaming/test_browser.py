"""The JavaScript core shows what the server has assembled, whatever has happened in the thread."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from durable_agents import create_thread
from durable_agents.live.reader import ThreadReader
from durable_agents.models import Thread
from durable_agents.reading import AnswerStream, latest_answer_of
from tests.chat.stored import plain, stored
from tests.lifecycle.histories import History
from tests.python_api.following import FaithfulHistory
from tests.streaming.truth import truth

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(shutil.which("node") is None, reason="needs Node"),
    pytest.mark.usefixtures("bells"),
]
SEEDS = range(12)
SCRIPT = Path(__file__).resolve().parents[1] / "js" / "apply-frames.mjs"


def applied_by_javascript(cases):
    """Return what the JavaScript core shows after the frames or chunks of each case."""
    ended = subprocess.run(["node", SCRIPT], input=json.dumps(cases), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def histories(declare, kind):
    """Yield the beginnings of random histories."""
    for seed in SEEDS:
        agent = declare(f"tested{seed}" if seed else "tested", max_steps=6)
        history = kind(create_thread(agent, prompt="Hi"), seed=seed)
        history.worker.agents = (agent.name,)
        yield history


def test_after_any_frames_the_page_shows_what_a_snapshot_shows(declare):
    """Progress of running calls included."""
    cases, expected, progress = [], [], 0
    for history in histories(declare, History):
        reader = ThreadReader(history.thread.pk)
        frames = [reader.snapshot(tail=200)]
        for _ in range(30):
            history.go_on()
            frames += reader.news()
            cases.append({"frames": list(frames)})
            expected.append(json.loads(json.dumps(truth(history.thread))))
            progress += json.dumps(expected[-1]).count("preliminary")
    assert progress > 0, "some states have a running call with progress"
    for shown, stored_messages in zip(applied_by_javascript(cases), expected, strict=True):
        assert shown == stored_messages


def test_after_any_chunks_the_page_shows_what_is_stored(declare):
    """The chunks are those of the AI SDK's stream, from the beginning of an answer to any moment of it."""
    cases, expected, progress = [], [], 0
    for history in histories(declare, FaithfulHistory):
        for _ in range(30):
            history.go_on()
            thread = Thread.objects.get(pk=history.thread.pk)
            answer = latest_answer_of(thread)
            if answer is None or not thread.is_running:
                continue
            teller = AnswerStream(thread.pk, answer=answer, knows_7=True)
            cases.append({"chunks": teller.read()})
            expected.append(json.loads(json.dumps(stored(answer))))
            progress += json.dumps(expected[-1]).count("preliminary")
    assert progress > 0, "some states have a running call with progress"
    for shown, stored_parts in zip(applied_by_javascript(cases), expected, strict=True):
        assert plain(shown) == plain(stored_parts)
