"""The servers that a benchmark runs against: database, Redis and model, started for it and ended after it."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

from tests.benchmarks.meters import NoMeter, PostgresMeter, tree_cpu_seconds
from tests.benchmarks.model_process import Exchange, Plan
from tests.servers.postgres import PostgresUnderTest, as_server_user, binary, owned_by_server_user
from tests.servers.redis import RedisUnderTest, program

ROOT = Path(__file__).resolve().parents[2]
WORKER_ROLE = "benchmark_worker"
"""The role of the workers on a server of the benchmark's own: their statements are counted apart from the sender's."""


@dataclass(kw_only=True)
class Database:
    """A database that a benchmark has for itself."""

    vendor: str
    url: str
    """For the process that sends messages and looks at the result."""
    worker_url: str
    peers_url: str = ""
    """A second database, for what other frameworks store."""
    worker_role: str = ""
    peers_role: str = ""
    meter: PostgresMeter | NoMeter = field(default_factory=NoMeter)
    peers_meter: PostgresMeter | NoMeter = field(default_factory=NoMeter)


class OwnPostgres(PostgresUnderTest):
    """A server with PostgreSQL's defaults, and its statements counted."""

    options: ClassVar[dict[str, str]] = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "shared_preload_libraries": "pg_stat_statements",
        "pg_stat_statements.track": "all",
        "pg_stat_statements.max": "50000",
    }

    @property
    def pid(self) -> int:
        """Return the process id of the postmaster."""
        if self._server is None:
            raise RuntimeError("PostgreSQL does not run")
        return self._server.pid


@contextlib.contextmanager
def own_postgres() -> Iterator[Database]:
    """Start a PostgreSQL server for the benchmark alone."""
    with tempfile.TemporaryDirectory(prefix="durable-agents-benchmark-", ignore_cleanup_errors=True) as name:
        folder = owned_by_server_user(Path(name))
        data = folder / "data"
        command = [binary("initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C"]
        subprocess.run([*command, "--no-sync"], check=True, capture_output=True, cwd=folder, **as_server_user())
        server = OwnPostgres(data).start()
        try:
            server.execute("CREATE DATABASE agents")
            server.execute("CREATE DATABASE peers")
            server.execute(f"CREATE ROLE {WORKER_ROLE} SUPERUSER LOGIN")
            facts: dict[str, Any] = {"postmaster": server.pid, "folder": data}
            yield Database(
                vendor="postgresql",
                url=server.url,
                worker_url=server.url.replace("postgres@", f"{WORKER_ROLE}@"),
                peers_url=server.url.replace("postgres://", "postgresql://").replace("/agents", "/peers"),
                worker_role=WORKER_ROLE,
                peers_role="postgres",
                meter=PostgresMeter(server.conninfo("agents"), "agents", **facts),
                peers_meter=PostgresMeter(server.conninfo("peers"), "peers", **facts),
            )
        finally:
            server.stop("immediate")


@contextlib.contextmanager
def shared_postgres(url: str) -> Iterator[Database]:
    """Create two databases on the server that `url` names, and drop them at the end."""
    import psycopg

    parts = urlsplit(url.replace("postgres://", "postgresql://"))
    names = [f"benchmark_{os.getpid()}", f"benchmark_{os.getpid()}_peers"]
    urls = [urlunsplit(parts._replace(path=f"/{name}")) for name in names]
    with psycopg.connect(urlunsplit(parts._replace(path="/postgres")), autocommit=True) as session:
        try:
            for name in names:
                session.execute(f"CREATE DATABASE {name}")
            meters = [PostgresMeter(url, name) for url, name in zip(urls, names, strict=True)]
            user = parts.username or ""
            yield Database(
                vendor="postgresql",
                url=urls[0],
                worker_url=urls[0],
                peers_url=urls[1],
                worker_role=user,
                peers_role=user,
                meter=meters[0],
                peers_meter=meters[1],
            )
        finally:
            for name in names:
                session.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextlib.contextmanager
def sqlite() -> Iterator[Database]:
    """Make a folder for a SQLite file."""
    with tempfile.TemporaryDirectory(prefix="durable-agents-benchmark-") as name:
        url = f"sqlite:///{Path(name) / 'benchmark.sqlite3'}"
        yield Database(vendor="sqlite", url=url, worker_url=url)


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Yield the URL of a Redis: the one that `TEST_REDIS_URL` names, else one of the benchmark's own."""
    if os.environ.get("TEST_REDIS_URL"):
        yield os.environ["TEST_REDIS_URL"]
        return
    program()
    with tempfile.TemporaryDirectory(prefix="durable-agents-redis-") as name:
        server = RedisUnderTest(Path(name)).start()
        try:
            yield server.url
        finally:
            server.kill()


def module_process(name: str) -> subprocess.Popen[str]:
    """Start a module of this folder in a process of its own, which is spoken to over its standard streams."""
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.benchmarks.{name}"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


class ModelProcess:
    """The model server, in a process of its own that ends with this one."""

    def __init__(self) -> None:
        self.process = module_process("model_process")
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    @property
    def url(self) -> str:
        """Return the base URL to give to a client."""
        return f"http://127.0.0.1:{self.port}/v1"

    def journal(self) -> list[Exchange]:
        """Return the requests since the journal was emptied."""
        return [Exchange(**item) for item in json.loads(self._ask("GET"))]

    def empty_journal(self) -> None:
        """Forget the requests so far."""
        self._ask("DELETE")

    def answers_per_second(self, count: int = 3000) -> float:
        """Return how many answers the server could give with a processor to itself."""
        body = json.dumps({"messages": [{"role": "user", "content": str(Plan(key="limit", steps=10))}]})
        before = tree_cpu_seconds(self.process.pid)
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        for _ in range(count):
            connection.request("POST", "/v1/chat/completions", body)
            connection.getresponse().read()
        connection.close()
        self.empty_journal()
        return count / max(0.01, tree_cpu_seconds(self.process.pid) - before)

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _ask(self, method: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, "/journal")
            return connection.getresponse().read()
        finally:
            connection.close()


@contextlib.contextmanager
def model_process() -> Iterator[ModelProcess]:
    """Run a model server."""
    model = ModelProcess()
    try:
        yield model
    finally:
        model.stop()
