"""The schema of the frames is published with the package, names every frame, and refuses what the server refuses."""

import re
from typing import Any

import jsonschema
import pytest
from django.contrib.staticfiles import finders

from durable_agents.consumers import ThreadConsumer
from tests.conftest import ROOT
from tests.websocket.protocol import SCHEMA, check, types


def test_it_is_a_schema_and_served_as_a_static_file():
    """Where a client can find it."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert finders.find("durable_agents/websocket.schema.json") is not None


def test_it_names_every_frame_that_a_client_may_send():
    """And no other."""
    assert types("client") == set(ThreadConsumer.COMMANDS)


def test_it_names_every_frame_that_the_server_sends():
    """Those of the consumer and those of its reader."""
    files = [ROOT / "durable_agents" / name for name in ("consumers.py", "streaming.py")]
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    told = {found for pair in re.findall(r'"type": "(\w+)"|type="(\w+)"', source) for found in pair if found}
    told |= set(re.findall(r'_frame\("(\w+)"', source))
    assert types("server") == told


WRONG: list[dict[str, Any]] = [
    {"type": "dance"},
    {"type": "subscribe"},
    {"type": "subscribe", "thread": 7},
    {"type": "tool_output", "thread": "t", "tool_call_id": "c"},
    {"type": "tool_output", "thread": "t", "tool_call_id": "c", "error": None},
    {"type": "tool_output", "thread": "t", "output": 1},
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
