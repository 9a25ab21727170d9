"""Other frameworks doing the same, with the extra `bench-peers`.

`python -m tests.benchmarks.peers NAME URL DATABASE WORKER` is one worker process of one of them. Each
runs the thread of a plan and stores it in PostgreSQL under the plan's key; asked again for the same plan after its
processes were killed, it goes on as well as the framework can. The line protocol is that of `loops`.
"""

import asyncio
import contextlib
import fcntl
import importlib.util
import operator
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

from tests.benchmarks.loops import litellm_model, run_tool, serve, tool_message
from tests.benchmarks.model_process import Plan

Run = Callable[[str], Awaitable[float]]
PACKAGES = {"langgraph": "langgraph.checkpoint.postgres", "agents-sdk": "agents", "dbos": "dbos"}
MANY = 100_000


def is_installed(name: str) -> bool:
    """Return whether the framework can be imported."""
    try:
        return importlib.util.find_spec(PACKAGES[name]) is not None
    except ImportError:
        return False


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Make tables while no other worker does."""
    with (Path(tempfile.gettempdir()) / "durable-agents-benchmark-peers.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def timed(work: Callable[[str, str], Awaitable[None]]) -> Run:
    """Return a function that takes a prompt, works on it under its plan's key and returns the seconds that took."""

    async def run(prompt: str) -> float:
        started = time.monotonic()
        await work(Plan.find(prompt.encode()).key, prompt)
        return time.monotonic() - started

    return run


class State(TypedDict):
    """The state of a LangGraph thread."""

    messages: Annotated[list[dict[str, Any]], operator.add]


@contextlib.asynccontextmanager
async def langgraph(url: str, database: str, worker: str) -> AsyncIterator[Run]:
    """A graph of a model node, which calls litellm, and a tool node; checkpoints in PostgreSQL."""
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from langgraph.graph import END, START, StateGraph
    from psycopg.rows import dict_row
    from psycopg_pool import AsyncConnectionPool

    async with contextlib.AsyncExitStack() as stack:
        model = litellm_model(url, stack)

        async def call_model(state: State) -> dict[str, Any]:
            return {"messages": [await model(state["messages"])]}

        async def call_tools(state: State) -> dict[str, Any]:
            return {"messages": [tool_message(call) for call in state["messages"][-1]["tool_calls"]]}

        facts = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        pool: Any = AsyncConnectionPool(database, min_size=1, max_size=10, kwargs=facts, open=False)
        await stack.enter_async_context(pool)
        saver = AsyncPostgresSaver(pool)
        with alone():
            await saver.setup()
        builder = StateGraph(State)
        builder.add_node("model", call_model)
        builder.add_node("tools", call_tools)
        builder.add_edge(START, "model")
        builder.add_conditional_edges("model", lambda state: "tools" if "tool_calls" in state["messages"][-1] else END)
        builder.add_edge("tools", "model")
        graph = builder.compile(checkpointer=saver)

        async def work(key: str, prompt: str) -> None:
            config: Any = {"configurable": {"thread_id": key}, "recursion_limit": MANY}
            state = await graph.aget_state(config)
            if not state.values:
                await graph.ainvoke({"messages": [{"role": "user", "content": prompt}]}, config)
            elif state.next:
                await graph.ainvoke(None, config)

        yield timed(work)


@contextlib.asynccontextmanager
async def agents_sdk(url: str, database: str, worker: str) -> AsyncIterator[Run]:
    """OpenAI's Agents SDK on its own client; a session in PostgreSQL."""
    from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
    from agents.extensions.memory.sqlalchemy_session import SQLAlchemySession
    from openai import AsyncOpenAI
    from sqlalchemy.ext.asyncio import create_async_engine

    set_tracing_disabled(disabled=True)

    @function_tool
    async def add(a: int, b: int) -> str:
        """Add two numbers."""
        return run_tool("add", {"a": a, "b": b})

    @function_tool
    async def note(path: str, text: str) -> str:
        """Write a line into a file."""
        return run_tool("note", {"path": path, "text": text})

    client = AsyncOpenAI(base_url=url, api_key="test", max_retries=0)
    agent = Agent(name="bench", model=OpenAIChatCompletionsModel(model="test", openai_client=client), tools=[add, note])
    engine = create_async_engine(database.replace("postgresql://", "postgresql+asyncpg://"), pool_size=10)
    with alone():
        await SQLAlchemySession("first", engine=engine, create_tables=True).get_items()

    async def work(key: str, prompt: str) -> None:
        session = SQLAlchemySession(key, engine=engine)
        items = await session.get_items()
        if items and items[-1].get("role") == "assistant":
            return
        result = Runner.run_streamed(agent, [] if items else prompt, session=session, max_turns=MANY)
        async for _ in result.stream_events():
            pass

    try:
        yield timed(work)
    finally:
        await engine.dispose()
        await client.close()


@contextlib.asynccontextmanager
async def dbos(url: str, database: str, worker: str) -> AsyncIterator[Run]:
    """A DBOS workflow of two kinds of steps: a model call by litellm, a tool."""
    os.environ["DBOS__VMID"] = f"worker-{worker}"  # what a worker began, the one in its place goes on with
    from dbos import DBOS, SetWorkflowID

    DBOS(config={"name": "bench", "system_database_url": database, "run_admin_server": False, "log_level": "CRITICAL"})
    async with contextlib.AsyncExitStack() as stack:
        model = litellm_model(url, stack)

        @DBOS.step()
        async def call_model(messages: list[dict[str, Any]]) -> dict[str, Any]:
            return await model(messages)

        @DBOS.step()
        async def call_tool(call: dict[str, Any]) -> dict[str, Any]:
            return tool_message(call)

        @DBOS.workflow()
        async def converse(prompt: str) -> None:
            messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
            while "tool_calls" in (answer := await call_model(messages)):
                messages.append(answer)
                messages.extend([await call_tool(call) for call in answer["tool_calls"]])

        with alone():
            DBOS.launch()

        async def work(key: str, prompt: str) -> None:
            with SetWorkflowID(key):  # one that is there is waited for
                handle = await DBOS.start_workflow_async(converse, prompt)
            await handle.get_result()

        yield timed(work)
        DBOS.destroy()


PEERS = {"langgraph": langgraph, "agents-sdk": agents_sdk, "dbos": dbos}


async def main() -> None:
    """Serve threads of the framework that the command line names."""
    name, url, database, worker = sys.argv[1:]
    async with PEERS[name](url, database, worker) as run:
        await serve(run)


if __name__ == "__main__":
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    asyncio.run(main())
