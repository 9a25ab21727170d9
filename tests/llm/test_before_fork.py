"""What a door needs is loaded once, before the workers fork: no thread is left in the parent, and children can call."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.model import ModelUnderTest, Reply

ROOT = Path(__file__).resolve().parent.parent.parent
PARENT_AND_CHILDREN = """
import asyncio, os, sys, threading, time

import django

django.setup()
from durable_agents.llm import ModelRequest, TextDelta, door

door().prepare()
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
deadline = time.monotonic() + 10  # a thread that Python has joined may take its last steps in the kernel
while len(native := os.listdir("/proc/self/task")) > 1 and time.monotonic() < deadline:
    time.sleep(0.01)
assert len(native) == 1, native


async def ask():
    settings = {"api_base": sys.argv[1], "api_key": "none"}
    request = ModelRequest(model="openai/x", messages=[{"role": "user", "content": "Hi"}], settings=settings)
    events = [event async for event in door().stream(request)]
    door().estimate(request, "Hello.")
    return "".join(event.text for event in events if isinstance(event, TextDelta))


assert ("litellm" in sys.modules) == (sys.argv[2] == "litellm")
for _ in range(2):
    child = os.fork()
    if child == 0:
        os._exit(0 if asyncio.run(ask()) == "Hello from there." else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("fine")
"""


@pytest.mark.parametrize("door", ["litellm", "direct", "auto"])
def test_loaded_before_the_fork_no_thread_is_left_and_every_child_can_call(door):
    """Neither a thread of Python's nor one of a library's own, which no child would have."""
    warnings = ("-W", "error:This process:DeprecationWarning")
    with ModelUnderTest(Reply(text="Hello from there.", delay_seconds=0)) as server:
        ran = subprocess.run(
            [sys.executable, *warnings, "-c", PARENT_AND_CHILDREN, server.url, door],
            cwd=ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tests.settings",
                "TEST_DURABLE_AGENTS": json.dumps({"MODEL_DOOR": door}),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.stdout.strip() == "fine", ran.stderr[-2000:]
    assert len(server.requests) == 2
