"""The schema of the frames is published with the package, names every frame, and refuses what the server refuses."""

import re
from typing import Any

import jsonschema
import pytest
from django.contrib.staticfiles import finders

from durable_agents.live import commands, frames
from durable_agents.live.consumer import ThreadConsumer
from tests.processes import ROOT
from tests.websocket.protocol import SCHEMA, check, types


def test_it_is_a_schema_and_served_as_a_static_file():
    """Where a client can find it."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert finders.find("durable_agents/websocket.schema.json") is not None


def test_it_names_every_frame_that_a_client_may_send():
    """And no other."""
    assert types("client") == set(frames.FRAMES)


def test_every_frame_that_a_client_may_send_has_a_handler():
    """A command in `commands`, any other frame in the consumer."""
    requests = {name for name, frame in frames.FRAMES.items() if not issubclass(frame, frames.ClientCommand)}
    assert {name for name in requests if not hasattr(ThreadConsumer, f"on_{name}")} == set()
    assert set(frames.FRAMES) - requests == set(commands.HANDLERS)


def test_it_names_every_frame_that_the_server_sends():
    """Those of the consumer, its subscriptions and their reader."""
    live = [ROOT / "durable_agents" / "live" / f"{name}.py" for name in ("consumer", "subscriptions", "reader")]
    files = [*live, ROOT / "durable_agents" / "delta_writer.py"]
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    told = {found for pair in re.findall(r'"type": "(\w+)"|type="(\w+)"', source) for found in pair if found}
    told |= set(re.findall(r'_frame\("(\w+)"', source))
    assert types("server") == told


WRONG: list[dict[str, Any]] = [
    {"type": "dance"},
    {"type": "subscribe"},
    {"type": "subscribe", "thread": 7},
    {"type": "tool_result", "thread": "t", "tool_call_id": "c"},
    {"type": "tool_result", "thread": "t", "result": 1},
    {"type": "tool_error", "thread": "t", "tool_call_id": "c"},
    {"type": "tool_error", "thread": "t", "tool_call_id": "c", "error": None},
    {"type": "approve", "thread": "t", "tool_call_id": "c", "approved": "yes"},
    {"type": "approve", "thread": "t", "tool_call_id": "c", "arguments": []},
    {"type": "reject", "thread": "t"},
    {"type": "edit", "thread": "t", "prompt": "Hi"},
    {"type": "regenerate", "thread": "t", "message": 7},
]


@pytest.mark.parametrize("frame", WRONG)
def test_it_refuses_frames_that_lack_something_or_have_it_wrong(frame):
    """As the server does."""
    with pytest.raises(AssertionError):
        check("client", frame)
