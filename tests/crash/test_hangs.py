"""A tool that never ends: it is given up, and takes nobody with it."""

import json
import re
import time

import pytest

from durable_agents import create_thread
from durable_agents.models import Stream, ToolCall
from tests.crash.talk import asked, said, was_told, words
from tests.proof import FULL
from tests.servers.model import Call, Reply
from tests.workers import at_rest, until

CRASH_LIMIT = 10 if FULL else 1


@pytest.mark.slow
def test_tool_that_blocks_the_loop_takes_no_other_thread_down(start, model_server, prove):
    """The watchdog ends the process, time and again, until the call has killed its limit of workers, alone."""
    block = Reply(calls=(Call(name="block_the_loop", arguments={}),))

    def script(request):
        if was_told(request):
            return Reply(text="I see.")
        return block if asked(request) == "Block." else Reply(text=words(50, asked(request)), delay_seconds=0.1)

    model_server.answer_with(script)
    start(3, TEST_DURABLE_AGENTS=json.dumps({"LEASE_SECONDS": 3, "CRASH_LIMIT": CRASH_LIMIT}))
    names = [f"bystander {number}" for number in range(4)]
    bystanders = [create_thread("talker", prompt=name) for name in names]
    until(lambda: Stream.objects.held().count() == len(names))
    began = time.monotonic()
    blocker = create_thread("toolbox", prompt="Block.")
    rested = at_rest(*bystanders, seconds=120)
    assert {thread.status for thread in rested} == {"completed"}
    for name, thread in zip(names, bystanders, strict=True):
        assert said(thread) == [("user", [name]), ("assistant", [words(50, name)])]
    [blocker] = at_rest(blocker, seconds=60 + 20 * CRASH_LIMIT)
    call = ToolCall.objects.get(thread=blocker)
    crashes = sorted(Stream.objects.filter(thread__in=bystanders, state="finished").values_list("crashes", flat=True))
    prove(
        f"given up after {time.monotonic() - began:.0f} s (CRASH_LIMIT {CRASH_LIMIT}); crashes of bystanders: {crashes}"
    )
    assert max(crashes) <= 1, "the row that blocks is known before it kills a second time"
    assert (blocker.status, call.status) == ("completed", "failed")
    assert re.search("may or may not have run", call.error)
    assert said(blocker)[-1] == ("assistant", ["I see."])
