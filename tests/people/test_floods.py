"""A chat request costs what is used of it, whatever else it brings, on a running daphne."""

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from durable_agents import strictjson
from durable_agents.models import Message
from tests.chat.client import user_message
from tests.people.peaks import MEGABYTE, Peak

GOOD = json.dumps(user_message("Hi", "m1"))


def filled(piece: str, *, size: int = 10_000_000) -> str:
    """Return a chat whose history is this piece over and over, with a good message at the end."""
    begin, end = '{"id": "flood", "messages": [', f"{GOOD}]}}"
    return begin + (piece + ",") * ((size - len(begin) - len(end)) // (len(piece) + 1)) + end


FLOODS = {
    "empty lists": filled("[]"),
    "empty objects": filled("{}"),
    "nested lists": filled("[[[]]]"),
    "small objects": filled('{"a":0}'),
    "small texts": filled('"a"'),
    "numbers": filled("1.5"),
    "one message of lists": filled('{"role":"user","parts":[' + ",".join(["[]"] * 1_000_000) + "]}"),
}


@pytest.mark.parametrize("body", FLOODS.values(), ids=FLOODS)
def test_three_floods_at_once_cost_little_and_keep_nobody_waiting(team_server, chat, bob, body):
    """The bodies themselves are ten megabytes each, as bytes and as text; nothing is made of them."""
    bob.post("threads/")
    chat(json.dumps({"id": "warm", "messages": [user_message("Hi", "m0")], "trigger": "none"}))
    began = time.monotonic()
    with Peak(team_server, bob) as peak, ThreadPoolExecutor(3) as clients:
        answers = list(clients.map(chat, [body] * 3))
    assert {(status, told.get("code")) for status, told in answers} == {(413, "too_large")}
    assert peak.bytes < 160 * MEGABYTE, f"{peak.bytes / MEGABYTE:.0f} MB"
    assert peak.longest_wait < 1.5, f"{peak.longest_wait:.1f} s"
    assert time.monotonic() - began < 5
    assert Message.objects.count() == 0


def test_a_long_history_is_taken_for_its_last_message(chat):
    """Ten megabytes of talk with files in it, and strings full of what looks like JSON: nothing else of it is looked
    at, be it a message or not."""
    said = [user_message("[{,}]" * 400, f"old{number}") for number in range(4_000)]
    body = json.dumps({"id": "long", "messages": [*said, 7, None, user_message("Hi", "m1")]})
    assert len(body) > 8_000_000
    assert chat(body)[0] == 200
    assert list(Message.objects.filter(role="user").values_list("text", flat=True)) == ["Hi"]


TEXTS = {
    "a text that never ends": '"' + '\\"' * 5_000_000,
    "texts within texts": json.dumps([json.dumps([{"key": "value", "n": 1}] * 300_000)]),
    "very many texts": "[" + ",".join(['"a"'] * 2_500_000) + "]",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_values_are_counted_in_linear_time(text):
    """Whatever the text looks like."""
    began = time.monotonic()
    with contextlib.suppress(ValueError):
        strictjson.read(text, max_depth=32, max_values=500_000)
    assert time.monotonic() - began < 2


def test_what_is_in_strings_is_no_value():
    """Nor is an escaped quote their end."""
    text = json.dumps(['[{,"\\'] * 3)
    assert strictjson.read(text, max_depth=2, max_values=3) == ['[{,"\\'] * 3
    with pytest.raises(strictjson.TooManyValuesError):
        strictjson.read(text, max_depth=2, max_values=2)
