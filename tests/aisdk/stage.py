"""Where the cases play: the demo as in production, a model that says what a case has written, and a control server.

The cases are JavaScript (`cases/`) and reach what is not a client's business by HTTP on loopback: they write the
model's script, read what it was asked, let it go on, and kill the worker that listens to it. Each has a tag, which is
in every prompt that it sends, so that the model knows whose script to follow.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import tempfile
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import psutil

from demo_project.model_server import Body, Call, Reply
from tests.demo.running import RunningDemo, finished_thread
from tests.servers.model import Answer, Cut, Hold, ModelUnderTest, Status

TAG = re.compile(r"\[(case-[\w-]+)\]")


@dataclass
class Part:
    """What the model says in one case, what it was asked there, and from which port it was asked last."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[Body] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    listener: int = 0

    def next_answer(self) -> Answer:
        """Return the next answer of the script, the last one again and again."""
        return self.answers[min(len(self.requests), len(self.answers)) - 1] if self.answers else Reply(text="Hello.")


class TaggedModel(ModelUnderTest):
    """A model server that answers each case by its own script."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.parts: defaultdict[str, Part] = defaultdict(Part)

    def _answer(self, request: Body) -> Answer:
        return self.parts[tag_in(request)].next_answer()

    async def complete(self, request: Body, writer: asyncio.StreamWriter) -> None:
        """Note who asks, and answer."""
        part = self.parts[tag_in(request)]
        part.requests.append(request)
        part.listener = writer.get_extra_info("peername")[1]
        await super().complete(request, writer)


def tag_in(request: Body) -> str:
    """Return the tag of the case that a request belongs to."""
    found = TAG.findall(json.dumps(request.get("messages", [])))
    return found[-1] if found else ""


def answer_of(entry: Body, gate: threading.Event) -> Answer:
    """Return the answer that one entry of a case's script describes."""
    if "status" in entry:
        return Status(status=entry["status"], message=entry.get("message", "Scripted failure."))
    calls = tuple(Call(name=call["name"], arguments=call["arguments"]) for call in entry.get("calls", []))
    said = {name: entry[name] for name in ("text", "reasoning") if name in entry}
    reply = Reply(calls=calls, delay_seconds=0.005, **said)
    if "hold" in entry:
        return Hold(reply=reply, after=entry["hold"], gate=gate)
    return Cut(reply=reply, after=entry["cut"]) if "cut" in entry else reply


class Stage:
    """A context manager: inside it the demo runs, and its control server answers at `control_url`."""

    def __init__(self) -> None:
        self.model = TaggedModel()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aisdk-")))
            stack.enter_context(self.model)
            env = stack.enter_context(services())
            model = {"DEMO_MODEL": "openai/scripted", "OPENAI_API_BASE": self.model.url, "OPENAI_API_KEY": "none"}
            self.demo = stack.enter_context(RunningDemo(self.folder, "--port", "0", **env, **model))
            self.control_url = stack.enter_context(control(self))
            self._stack = stack.pop_all()
        with self.demo.signed_in("demo") as client:
            finished_thread(client, "Are you there?")  # the workers are ready once they have answered
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def script(self, tag: str, answers: list[Body]) -> None:
        """Say from now on, in this case, these answers in this order."""
        part = Part()
        part.answers = [answer_of(entry, part.gate) for entry in answers]
        self.model.parts[tag] = part

    def go_on(self, tag: str) -> None:
        """Let the answer that is held go on."""
        self.model.parts[tag].gate.set()

    def requests(self, tag: str) -> list[Body]:
        """Return what the model was asked in this case."""
        return self.model.parts[tag].requests

    def kill_worker(self, tag: str) -> int:
        """Kill the process that the model is speaking to in this case; return its id."""
        port = self.model.parts[tag].listener
        [pid] = {child.pid for child in self.demo.children() if port in local_ports(child)}
        os.kill(pid, signal.SIGKILL)
        return pid


def local_ports(process: psutil.Process) -> set[int]:
    """Return the ports that a process speaks from."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return {connection.laddr.port for connection in process.net_connections("tcp") if connection.raddr}
    return set()


@contextmanager
def services() -> Iterator[dict[str, str]]:
    """Yield the demo's database and Redis where the environment names them for tests; a SQLite file is its default."""
    env = {}
    if redis := os.environ.get("TEST_REDIS_URL"):
        env["REDIS_URL"] = redis
    with ExitStack() as stack:
        if url := os.environ.get("TEST_DATABASE_URL"):
            env["DATABASE_URL"] = stack.enter_context(new_database(url))
        yield env


@contextmanager
def new_database(url: str) -> Iterator[str]:
    """Yield the URL of an empty PostgreSQL database beside the one at `url`; it is dropped at the end."""
    import psycopg

    base = url.rpartition("/")[0]
    name = f"aisdk_{uuid.uuid4().hex[:12]}"
    server = f"{base.replace('postgres://', 'postgresql://')}/postgres"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield f"{base}/{name}"
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextmanager
def control(stage: Stage) -> Iterator[str]:
    """Serve the control of `stage` on a free port of loopback; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer: Any = getattr(stage, self.path.strip("/"))(**body)
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
