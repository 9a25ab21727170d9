"""Calls are put together from every mixture of accents that still tells them apart."""

import itertools
import json
import random

import pytest

from durable_agents.llm import CallArguments, CallStarted
from durable_agents.llm.call_deltas import CallDelta, CallDeltas

NAMES = ("say", "list_orders", "ping", "list")
INDEXES = {"an index each": lambda number: number, "one index": lambda _: 0, "no index": lambda _: -1}
IDS = {"an id each": lambda number: f"c{number}", "one id": lambda _: "c", "no id": lambda _: ""}


def named_first(name, call_id, pieces):
    return [(call_id, name, ""), *(("", "", piece) for piece in pieces)]


def named_every_time(name, call_id, pieces):
    return [(call_id, name, piece) for piece in pieces]


def named_late(name, call_id, pieces):
    return [(call_id, "", ""), ("", name, ""), *(("", "", piece) for piece in pieces)]


def named_in_pieces(name, call_id, pieces):
    return [(call_id, name[:2], ""), ("", name[2:], ""), *(("", "", piece) for piece in pieces)]


def named_with_a_placeholder(name, call_id, pieces):
    return [(call_id, name, "{}"), *(("", "", piece) for piece in pieces)]


def whole(name, call_id, pieces):
    return [(call_id, name, "".join(pieces))]


STYLES = (named_first, named_every_time, named_late, named_in_pieces, named_with_a_placeholder, whole)


def put_together(deltas):
    """Return name and arguments of each call, as the events tell them."""
    assembled = CallDeltas(known_names=NAMES)
    events = [event for delta in deltas for event in assembled.take([delta])] + assembled.close()
    names = [event.tool_name for event in events if isinstance(event, CallStarted)]
    raw = [""] * len(names)
    for event in events:
        if isinstance(event, CallArguments):
            raw[event.index] += event.text
    return [(name, json.loads(text or "{}")) for name, text in zip(names, raw, strict=True)]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("index", "call_id"), list(itertools.product(INDEXES, IDS)))
def test_calls_one_after_the_other_are_told_apart(style, index, call_id):
    """Each has arguments, in pieces that end anywhere."""
    for seed in range(60):
        rng = random.Random(f"{style.__name__} {index} {call_id} {seed}")
        wanted = [(rng.choice(NAMES), {"n": rng.randrange(1000)}) for _ in range(rng.randint(1, 4))]
        deltas = []
        for number, (name, arguments) in enumerate(wanted):
            for given_id, given_name, piece in style(name, IDS[call_id](number), cut(json.dumps(arguments), rng)):
                delta = CallDelta(index=INDEXES[index](number), call_id=given_id, name=given_name, arguments=piece)
                deltas.append(delta)
        assert put_together(deltas) == wanted, (seed, deltas)


@pytest.mark.parametrize("style", [named_first, named_every_time, named_late])
def test_calls_in_turns_are_told_apart_by_their_index(style):
    """Whatever the order of their pieces."""
    for seed in range(60):
        rng = random.Random(seed)
        wanted = [(rng.choice(NAMES), {"n": rng.randrange(1000)}) for _ in range(3)]
        queues = [
            [
                CallDelta(index=number, call_id=given_id, name=given_name, arguments=piece)
                for given_id, given_name, piece in style(name, f"c{number}", cut(json.dumps(arguments), rng))
            ]
            for number, (name, arguments) in enumerate(wanted)
        ]
        deltas = [queue.pop(0) for queue in queues]
        while any(queues):
            deltas.append(rng.choice([queue for queue in queues if queue]).pop(0))
        assert put_together(deltas) == wanted, (seed, deltas)


def cut(text, rng):
    """Return the text in pieces."""
    ends = sorted(rng.sample(range(1, len(text)), rng.randint(0, 3)))
    return [text[start:end] for start, end in itertools.pairwise([0, *ends, len(text)])]
