"""Bare loops: agents that store nothing and survive nothing, one event loop a process.

`python -m tests.benchmarks.loops aiohttp|litellm URL` reads JSON, one object a line: `{"plans": [], "together": true}`.
It runs a thread for each plan and prints an object with the seconds that each thread took. It ends with its standard
input.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Model = Callable[[list[Message]], Awaitable[Message]]


def schema(name: str, description: str, **properties: str) -> dict[str, Any]:
    """Return a tool in OpenAI's format."""
    types = {key: {"type": kind} for key, kind in properties.items()}
    parameters = {"type": "object", "properties": types, "required": list(types)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [
    schema("add", "Add two numbers.", a="integer", b="integer"),
    schema("note", "Write a line into a file.", path="string", text="string"),
]


def run_tool(name: str, arguments: dict[str, Any]) -> str:
    """Do what the model asks for."""
    if name == "note":
        with Path(arguments["path"]).open("a", encoding="utf-8") as file:
            file.write(arguments["text"] + "\n")
        return "noted"
    return json.dumps(arguments["a"] + arguments["b"])


def tool_message(call: dict[str, Any]) -> Message:
    """Run a tool call; return its result as a message."""
    function = call["function"]
    result = run_tool(function["name"], json.loads(function["arguments"]))
    return {"role": "tool", "tool_call_id": call["id"], "content": result}


async def thread(model: Model, prompt: str) -> float:
    """Call the model until it calls no tool; return the seconds that took."""
    started = time.monotonic()
    messages: list[Message] = [{"role": "user", "content": prompt}]
    while True:
        answer = await model(messages)
        messages.append(answer)
        if "tool_calls" not in answer:
            return time.monotonic() - started
        messages.extend(tool_message(call) for call in answer["tool_calls"])


class Assembly:
    """An answer put together from the deltas of a stream."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.calls: list[dict[str, Any]] = []

    def add_call(self, *, index: int, call_id: str | None, name: str | None, arguments: str | None) -> None:
        """Take a delta of a tool call."""
        if index == len(self.calls):
            self.calls.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}})
        self.calls[index]["function"]["arguments"] += arguments or ""

    def message(self) -> Message:
        """Return the whole answer."""
        message: Message = {"role": "assistant", "content": "".join(self.text)}
        return {**message, "tool_calls": self.calls} if self.calls else message


def aiohttp_model(url: str, stack: contextlib.AsyncExitStack) -> Model:
    """Return a model that reads the server-sent events itself."""
    import aiohttp

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    stack.push_async_callback(session.close)

    async def call(messages: list[Message]) -> Message:
        body = {"model": "test", "messages": messages, "tools": TOOLS, "stream": True}
        answer = Assembly()
        async with session.post(f"{url}/chat/completions", json=body) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    take(json.loads(line[6:]), answer)
        return answer.message()

    def take(event: dict[str, Any], answer: Assembly) -> None:
        for choice in event["choices"]:
            delta = choice["delta"]
            if delta.get("content"):
                answer.text.append(delta["content"])
            for call in delta.get("tool_calls", ()):
                function = call["function"]
                answer.add_call(
                    index=call["index"],
                    call_id=call.get("id"),
                    name=function.get("name"),
                    arguments=function.get("arguments"),
                )

    return call


def litellm_model(url: str, stack: contextlib.AsyncExitStack) -> Model:
    """Return a model behind litellm."""
    import litellm

    async def call(messages: list[Message]) -> Message:
        stream = await litellm.acompletion(
            model="openai/test",
            messages=messages,
            tools=TOOLS,
            api_base=url,
            api_key="test",
            stream=True,
            stream_options={"include_usage": True},
            max_retries=0,
            num_retries=0,
        )
        answer = Assembly()
        async for event in stream:
            for choice in event.choices:
                take(choice.delta, answer)
        return answer.message()

    def take(delta: Any, answer: Assembly) -> None:
        if delta.content:
            answer.text.append(delta.content)
        for call in delta.tool_calls or ():
            function = call.function
            answer.add_call(index=call.index, call_id=call.id, name=function.name, arguments=function.arguments)

    return call


MODELS = {"aiohttp": aiohttp_model, "litellm": litellm_model}


async def serve(run: Callable[[str], Awaitable[float]]) -> None:
    """Run the threads of each line of standard input."""
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        if order["together"]:
            seconds = await asyncio.gather(*(run(prompt) for prompt in order["plans"]))
        else:
            seconds = [await run(prompt) for prompt in order["plans"]]
        print(json.dumps({"seconds": seconds}), flush=True)


async def main() -> None:
    """Serve threads of the model that the command line names."""
    async with contextlib.AsyncExitStack() as stack:
        model = MODELS[sys.argv[1]](sys.argv[2], stack)
        await serve(lambda prompt: thread(model, prompt))


if __name__ == "__main__":
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    asyncio.run(main())
