"""A PostgreSQL of the test's own, which it may stop, freeze, make read-only and kill.

def test_something(own_postgres):            # this process's Django is on it, its tables are there and empty
    own_postgres.restart("immediate")
    own_postgres.execute("SELECT pg_reload_conf()")
    with running(own_postgres.env): ...      # processes that use the same database
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from django.db import connections

from demo_project.settings import database

ROOT = Path(__file__).resolve().parents[2]
DATABASE = "agents"
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "max_connections": "60",
    "wal_level": "replica",
    "log_min_messages": "warning",
    "log_line_prefix": "%m %r ",
}


class PostgresUnderTest:
    """One server with its data in a folder, run by a user who is not root."""

    options: ClassVar[dict[str, str]] = OPTIONS

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.env: dict[str, str] = {}
        """Environment of processes that work on its database."""
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL of the database that has the tables of the project."""
        return f"postgres://postgres@127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> "PostgresUnderTest":
        """Start it and wait until it answers."""
        options = [f"--{name}={value}" for name, value in self.options.items()]
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self._server = subprocess.Popen(
                [binary("postgres"), "-D", self.folder, "-p", str(self.port), *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder.parent,
                **as_server_user(),
            )
        deadline = time.monotonic() + 30
        while not self.answers():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {self.log}")
            time.sleep(0.05)
        return self

    @property
    def log(self) -> str:
        """What the server has written."""
        return (self.folder.parent / f"{self.folder.name}.log").read_text(encoding="utf-8", errors="replace")

    def errors_of(self, ports: Iterable[int], *, since: int = 0) -> list[str]:
        """Return the lines that the server has written about clients with these ports, from a place in its log on."""
        clients = {f"127.0.0.1({port})" for port in ports}
        return [line for line in self.log[since:].splitlines() if " ERROR: " in line and clients & set(line.split())]

    def answers(self) -> bool:
        """Whether it takes connections."""
        import psycopg

        try:
            psycopg.connect(self.conninfo("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` cuts all sessions, `immediate` is a crash. A frozen or stopped one too."""
        if self._server is None:
            return
        self.thaw()
        number = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        self._server.send_signal(number)
        self._server.wait(30)
        self._server = None

    def restart(self, mode: str = "fast") -> None:
        """Stop it and start it on the same port."""
        self.stop(mode)
        self.start()

    def freeze(self) -> None:
        """SIGSTOP to every process of the server: connections stand, and nothing is answered."""
        for process in self._processes():
            process.suspend()

    def thaw(self) -> None:
        """Let a frozen server go on."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # the server ends processes of its own too
                process.resume()

    def execute(self, sql: str, *arguments: Any, name: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the superuser, outside of transactions; return the rows it gives."""
        import psycopg

        may_write = "-c default_transaction_read_only=off"
        with psycopg.connect(self.conninfo(name), autocommit=True, options=may_write) as session:
            cursor = session.execute(sql, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def conninfo(self, name: str = DATABASE) -> str:
        """How psycopg connects to one of its databases."""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={name}"

    def cut_sessions(self, where: str = "true") -> int:
        """End sessions of the project's database, those for which a condition on `pg_stat_activity` holds; return how
        many there were."""
        condition = f"datname = '{DATABASE}' AND pid <> pg_backend_pid() AND ({where})"
        return len(self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {condition}"))

    def set_read_only(self, on: bool) -> None:
        """What sessions that begin from now on may do; those that there are stay as they are."""
        self.execute(f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = {'on' if on else 'off'}")

    def start_standby(self, folder: Path) -> "PostgresUnderTest":
        """Start a hot standby with its data in this folder; from now on each commit waits until the standby has it."""
        command = [binary("pg_basebackup"), "-D", folder, "-R", "-X", "stream", "-c", "fast", "--no-sync"]
        command += ["-d", self.conninfo("postgres")]
        subprocess.run(command, check=True, capture_output=True, cwd=folder.parent, **as_server_user())
        standby = PostgresUnderTest(folder).start()
        try:
            self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self.execute("SELECT pg_reload_conf()")
            deadline = time.monotonic() + 30
            while self.execute("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"The standby does not follow: {standby.log}")
                time.sleep(0.05)
        except BaseException:
            standby.stop("immediate")
            raise
        return standby

    def promote(self) -> None:
        """Make this standby a primary, and wait until it takes writes."""
        command = [binary("pg_ctl"), "promote", "-D", self.folder, "-w", "-t", "60"]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder.parent, **as_server_user())

    def _processes(self) -> list[psutil.Process]:
        if self._server is None:
            return []
        main = psutil.Process(self._server.pid)
        return [main, *main.children(recursive=True)]


@dataclass(frozen=True, kw_only=True)
class PostgresPair:
    """A primary and its hot standby, between which clients choose by themselves."""

    primary: PostgresUnderTest
    standby: PostgresUnderTest
    env: dict[str, str]
    """Environment of processes that work on the database, wherever it is."""


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses just now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def binary(name: str) -> str:
    """Return the path of one of PostgreSQL's server programs; skip the test where there are none."""
    found = shutil.which(name) or max(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default=None)
    if found is None:
        pytest.skip("no PostgreSQL server is installed")
    return found


def as_server_user() -> dict[str, Any]:
    """Return what `Popen` needs so that the program does not run as root, which PostgreSQL refuses."""
    if os.getuid() != 0:
        return {}
    user = server_user()
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def server_user() -> pwd.struct_passwd:
    """Return an unprivileged user of this machine."""
    names = {user.pw_name for user in pwd.getpwall()}
    return pwd.getpwnam("postgres" if "postgres" in names else "nobody")


def owned_by_server_user(folder: Path) -> Path:
    """Give a folder and all in it to the user who runs the server."""
    if os.getuid() == 0:
        user = server_user()
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid)
    return folder


@pytest.fixture(scope="session")
def postgres_data(child_env: dict[str, str]) -> Iterator[Path]:
    """Make the data of a server with the project's tables once; servers run on copies of it."""
    with tempfile.TemporaryDirectory(prefix="durable-agents-postgres-", ignore_cleanup_errors=True) as name:
        folder = owned_by_server_user(Path(name))
        data = folder / "data"
        command = [binary("initdb"), "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C"]
        command += ["--no-sync", "--wal-segsize=1"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **as_server_user())
        server = PostgresUnderTest(data).start()
        try:
            server.execute(f"CREATE DATABASE {DATABASE}")
            migrate = [sys.executable, "manage.py", "migrate", "--run-syncdb", "--verbosity=0"]
            subprocess.run(migrate, check=True, cwd=ROOT, env=child_env | {"TEST_DATABASE_URL": server.url})
        finally:
            server.stop()
        yield data


@pytest.fixture
def postgres_server(postgres_data: Path, child_env: dict[str, str]) -> Iterator[PostgresUnderTest]:
    """Return a running server of this test's own, with the project's tables; this process's Django knows nothing of
    it."""
    with tempfile.TemporaryDirectory(prefix="durable-agents-postgres-", ignore_cleanup_errors=True) as name:
        data = Path(name) / "data"
        shutil.copytree(postgres_data, data)
        owned_by_server_user(Path(name))
        server = PostgresUnderTest(data).start()
        server.env = child_env | {"TEST_DATABASE_URL": server.url}
        try:
            yield server
        finally:
            server.stop("immediate")


@pytest.fixture
def own_postgres(postgres_server: PostgresUnderTest, django_db_blocker: Any) -> Iterator[PostgresUnderTest]:
    """Return a running server of this test's own, whose database is Django's in this process for as long."""
    with django_db_blocker.unblock(), used_by_django(postgres_server.url):
        yield postgres_server


@pytest.fixture
def own_pair(
    request: pytest.FixtureRequest, postgres_server: PostgresUnderTest, django_db_blocker: Any
) -> Iterator[PostgresPair]:
    """Return a running primary and its standby, the test's own, whose database is Django's in this process for as long.

    The parameter is libpq's ``target_session_attrs``: ``read-write`` never connects to a standby, ``any`` takes the
    first server that answers.
    """
    with tempfile.TemporaryDirectory(prefix="durable-agents-standby-", ignore_cleanup_errors=True) as name:
        standby = postgres_server.start_standby(owned_by_server_user(Path(name)) / "data")
        try:
            hosts = f"host=127.0.0.1,127.0.0.1&port={postgres_server.port},{standby.port}"
            url = f"postgres:///{DATABASE}?user=postgres&{hosts}&target_session_attrs={request.param}"
            with django_db_blocker.unblock(), used_by_django(url):
                env = postgres_server.env | {"TEST_DATABASE_URL": url}
                yield PostgresPair(primary=postgres_server, standby=standby, env=env)
        finally:
            standby.stop("immediate")


@contextlib.contextmanager
def used_by_django(url: str, **settings: Any) -> Iterator[None]:
    """Have the models of this process stored in the database at `url` for a while, with these settings of Django's."""
    before, connection = connections.settings["default"], connections["default"]
    connections.settings["default"] = connections.configure_settings({"default": database(url) | settings})["default"]
    del connections["default"]
    try:
        yield
    finally:
        connections["default"].close()
        connections.settings["default"] = before
        connections["default"] = connection
