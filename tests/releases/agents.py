"""Agents that differ from release to release, for tests of deploys. `TEST_RELEASE` says which one a process runs; one
without it knows the agents of both and the tools of today's.

Yesterday the archivist had `search`, which is `find` today; the retired agent is gone, and the newcomer is new.
"""

import os
import time

from durable_agents import Agent, tool
from tests.project.agents import MODEL, add

RELEASE = os.environ.get("TEST_RELEASE", "")


@tool(after_crash="retry")
def search(text: str, seconds: float = 0) -> str:
    """Look something up, in so many seconds."""
    time.sleep(seconds)
    return f"{RELEASE} searched {text}"


@tool
def find(text: str, seconds: float = 0) -> str:
    """Look something up, in so many seconds."""
    time.sleep(seconds)
    return f"{RELEASE} found {text}"


archivist = Agent("archivist", tools=[search] if RELEASE == "yesterday" else [find, add], **MODEL)

if RELEASE != "today":
    retired = Agent("retired", **MODEL)
if RELEASE != "yesterday":
    newcomer = Agent("newcomer", tools=[add], **MODEL)
