"""The least that a process can do: many streamed litellm calls in one event loop, nothing stored, nothing shown.

python -m tests.benchmarks.bare_loop URL CONVERSATIONS CALLS

Prints the seconds that the conversations took, litellm's import and a first call left out.
"""

import asyncio
import os
import sys
import time
from typing import Any


async def conversation(url: str, calls: int) -> int:
    """Stream one answer after the other; returns how many chunks came."""
    import litellm

    chunks = 0
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Go."}]
    for _ in range(calls):
        stream = await litellm.acompletion(
            model="openai/test",
            messages=messages,
            api_base=url,
            api_key="test",
            stream=True,
            stream_options={"include_usage": True},
            max_retries=0,
            num_retries=0,
        )
        async for _ in stream:
            chunks += 1
        messages.append({"role": "tool", "tool_call_id": "x", "content": "5"})
    return chunks


async def main(url: str, conversations: int, calls: int) -> None:
    await conversation(url, calls)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    started = time.monotonic()
    await asyncio.gather(*(conversation(url, calls) for _ in range(conversations)))
    print(time.monotonic() - started, flush=True)


if __name__ == "__main__":
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
