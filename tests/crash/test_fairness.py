"""Whoever floods the workers keeps nobody else waiting, user or visitor."""

import json
import time

import pytest
from django.contrib.auth import get_user_model

from durable_agents import create_thread
from tests.crash.talk import words
from tests.servers.model import Reply
from tests.workers import at_rest

FLOOD, SEATS, SECONDS_EACH = 30, 2, 0.5


def whose(kind, name):
    """Return the owner and scope of a user or a visitor."""
    if kind == "visitor":
        return {"scope": f"visitor:{name}"}
    return {"owner": get_user_model().objects.create_user(name)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["visitor", "user"])
def test_a_message_behind_a_flood_does_not_wait_for_all_of_it(start, model_server, kind):
    """The flood alone takes seven seconds and more; the other one's answer comes long before its end."""
    model_server.answer_with(Reply(text=words(5), delay_seconds=SECONDS_EACH / 5))
    settings = {"POOLS": {"agents": {"limit": SEATS}}}
    start(2, TEST_DURABLE_AGENTS=json.dumps(settings))
    flooding = whose(kind, "flooding")
    flood = [create_thread("talker", prompt="Go.", **flooding) for _ in range(FLOOD)]
    began = time.monotonic()
    thread = create_thread("talker", prompt="Go.", **whose(kind, "waiting"))
    at_rest(thread, seconds=60)
    waited = time.monotonic() - began
    at_rest(*flood, seconds=60)
    alone = time.monotonic() - began
    assert alone > FLOOD / SEATS * SECONDS_EACH
    assert waited < alone / 3, f"waited {waited:.1f} s of {alone:.1f} s"
