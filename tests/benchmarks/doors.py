"""A door to models that cost nothing: `DURABLE_AGENTS["MODEL_DOOR"] = "tests.benchmarks.doors.NullDoor"`.

`python -m tests.benchmarks.doors [--streams 50] [--tokens 100] [--pause-ms 20] [--rounds 5] [--profile]` prints the CPU
time of this process per token of the litellm and the direct door, in interleaved rounds: parallel streams of one token
an event, from a model server in another process, read as our events. Nothing is stored.
"""

import argparse
import asyncio
import contextlib
import cProfile
import json
import os
import pstats
import statistics
import time
import warnings
from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

from durable_agents.llm import (
    CallArguments,
    CallStarted,
    DirectDoor,
    Finished,
    LiteLLMDoor,
    ModelDoor,
    ModelEvent,
    ModelRequest,
    ModelUsage,
    TextDelta,
)
from tests.benchmarks.model_process import Plan
from tests.benchmarks.servers import ModelProcess


class NullDoor:
    """Answers as the model server of the benchmarks does, without a request.

    The file that `BENCHMARK_JOURNAL` names gets a line for each call, as the server's journal has it.
    """

    def __init__(self) -> None:
        name = os.environ.get("BENCHMARK_JOURNAL")
        self.journal = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if name else None

    def prepare(self) -> None:
        """Nothing is loaded."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """Yield the answer that the plan in the first user message asks for."""
        received_at = time.monotonic()
        prompt = next(message for message in request.messages if message["role"] == "user")
        plan = Plan.find(json.dumps(prompt["content"]).encode())
        step = sum(message["role"] == "tool" for message in request.messages)
        for number in range(plan.tokens):
            if plan.token_ms:
                await asyncio.sleep(plan.token_ms / 1000)
            yield TextDelta(text=f"token{number:02} ")
        if step < plan.steps:
            yield CallStarted(index=0, provider_call_id=f"call_{step:012}", tool_name=plan.tool)
            yield CallArguments(index=0, text=json.dumps(plan.arguments(step)))
        self.note(plan, step, received_at)
        yield Finished(
            finish_reason="tool_calls" if step < plan.steps else "stop",
            usage=ModelUsage(input_tokens=10, output_tokens=plan.tokens),
            model="test",
        )

    def note(self, plan: Plan, step: int, received_at: float) -> None:
        """Write a line into the journal."""
        if self.journal is not None:
            facts = {"key": plan.key, "step": step, "received_at": received_at, "ended_at": time.monotonic()}
            os.write(self.journal, json.dumps(facts).encode() + b"\n")

    def estimate(self, request: ModelRequest, answered: str) -> ModelUsage:
        """Return a usage of nothing."""
        return ModelUsage(estimated=True)

    def continues(self, model: str, settings: Mapping[str, Any] = MappingProxyType({})) -> bool:
        """Return that the model cannot continue an answer."""
        return False

    async def aclose(self) -> None:
        """Nothing is open."""


async def read(door: ModelDoor, url: str, plan: Plan) -> int:
    """Read one answer and return how many tokens of text it had."""
    settings = {"api_base": url, "api_key": "test"}
    request = ModelRequest(model="openai/test", messages=[{"role": "user", "content": str(plan)}], settings=settings)
    async with contextlib.aclosing(door.stream(request)) as events:
        return sum([isinstance(event, TextDelta) async for event in events])


async def cpu_per_token(door: ModelDoor, url: str, plan: Plan, *, streams: int) -> float:
    """Return the CPU time per token of parallel streams, in microseconds."""
    began = time.process_time()
    tokens = sum(await asyncio.gather(*(read(door, url, plan) for _ in range(streams))))
    return (time.process_time() - began) / tokens * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.doors")
    for name, default in (("streams", 50), ("tokens", 100), ("pause-ms", 20), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--profile", action="store_true", help="print where the direct door's time goes, too")
    given = parser.parse_args()
    plan = Plan(key="doors", steps=0, tokens=given.tokens, token_ms=given.pause_ms)
    doors: dict[str, ModelDoor] = {"litellm": LiteLLMDoor(), "direct": DirectDoor()}
    warnings.simplefilter("ignore")
    server, loop = ModelProcess(), asyncio.new_event_loop()
    figures: dict[str, list[float]] = {name: [] for name in doors}
    for door in doors.values():
        door.prepare()
        loop.run_until_complete(read(door, server.url, plan))
    for number in range(given.rounds):
        for name, door in doors.items():
            figure = loop.run_until_complete(cpu_per_token(door, server.url, plan, streams=given.streams))
            figures[name].append(figure)
            print(f"round {number + 1}  {name:8} {figure:7.1f} us CPU a token", flush=True)
    for name, found in figures.items():
        print(f"median   {name:8} {statistics.median(found):7.1f} us CPU a token")
    if given.profile:
        with cProfile.Profile() as profile:
            loop.run_until_complete(cpu_per_token(doors["direct"], server.url, plan, streams=given.streams))
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    for door in doors.values():
        loop.run_until_complete(door.aclose())
    loop.close()
    server.stop()


if __name__ == "__main__":
    import django

    django.setup()
    main()
