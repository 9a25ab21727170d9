"""What a run costs: CPU and memory of processes, statements and WAL of PostgreSQL, time that the host took."""

import contextlib
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

CONTROL = "^(begin|start|commit|rollback|savepoint|release|abort)"
FOREIGN_KEYS = "s.query LIKE 'SELECT %% FROM ONLY %% FOR KEY SHARE OF x'"
"""What PostgreSQL runs to check a deferred foreign key, at the commit and so at the top level."""
STATEMENTS = f"""
    SELECT r.rolname,
           CASE WHEN NOT s.toplevel OR {FOREIGN_KEYS} THEN 'nested' WHEN s.query ~* '^(begin|start)' THEN 'transactions'
                WHEN s.query ~* '{CONTROL}' THEN 'control' ELSE 'statements' END,
           sum(s.calls)::bigint
    FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
    WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = %(name)s)
    GROUP BY 1, 2
"""
TOP = f"""
    SELECT r.rolname, s.calls, s.rows, s.total_exec_time, s.wal_bytes::bigint, s.query
    FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
    WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = %(name)s) AND s.toplevel AND NOT {FOREIGN_KEYS}
          AND s.query !~* '{CONTROL}'
    ORDER BY s.calls DESC LIMIT %(count)s
"""


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of these processes and all below them, those that have ended among them."""
    return sum(tree_cpu_seconds(pid) for pid in pids)


def tree_cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of its children, living and waited for."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        main = psutil.Process(pid)
        for process in (main, *main.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])
    return total


def pss_bytes(pids: Iterable[int]) -> int:
    """Return the proportional set size of these processes and all below them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(pid)
            total += sum(process_pss_bytes(process.pid) for process in (main, *main.children(recursive=True)))
    return total


def process_pss_bytes(pid: int) -> int:
    """Return the proportional set size of a process, 0 of one that has gone."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


class Sampler:
    """Calls a function again and again in a thread of its own, within a block; keeps times and values."""

    def __init__(self, read: Callable[[], float], *, every: float) -> None:
        self.read = read
        self.every = every
        self.samples: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)

    def peak(self) -> float:
        """Return the highest value."""
        return max((value for _, value in self.samples), default=0.0)

    def at(self, when: float) -> float:
        """Return the value at a time, between two samples by a straight line."""
        before, after = self.samples[0], self.samples[-1]
        for sample in self.samples:
            if sample[0] <= when:
                before = sample
            else:
                after = sample
                break
        if after[0] <= before[0]:
            return before[1]
        return before[1] + (after[1] - before[1]) * (when - before[0]) / (after[0] - before[0])

    def _run(self) -> None:
        while True:
            self.samples.append((time.monotonic(), self.read()))
            if self._ended.wait(self.every):
                self.samples.append((time.monotonic(), self.read()))
                return


@dataclass(frozen=True, kw_only=True)
class HostTimes:
    """CPU time of the whole machine, in ticks: all of it, what ran, and what the host took."""

    total: int
    busy: int
    stolen: int

    @classmethod
    def now(cls) -> Self:
        """Read `/proc/stat`."""
        ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
        idle = ticks[3] + ticks[4]
        return cls(total=sum(ticks), busy=sum(ticks) - idle - ticks[7], stolen=ticks[7])

    def shares_since(self, before: "HostTimes") -> dict[str, float]:
        """Return which share of the machine was busy and which share was stolen."""
        total = max(1, self.total - before.total)
        return {"busy": (self.busy - before.busy) / total, "steal": (self.stolen - before.stolen) / total}


@dataclass
class DatabaseCosts:
    """What a stretch of time cost the database server; None where that is not known."""

    cpu_seconds: float | None = None
    wal_bytes: int | None = None
    full_page_bytes: int | None = None
    statements: dict[str, dict[str, int]] = field(default_factory=dict)
    """Counts by role and kind: statements, nested (foreign key checks), transactions, control (COMMIT and so on)."""

    def count(self, kind: str, *, role: str | None = None) -> int | None:
        """Return how many of a kind a role has run, or all roles; None where nothing was counted."""
        if not self.statements:
            return None
        return sum(kinds.get(kind, 0) for name, kinds in self.statements.items() if role in {None, name})


class NoMeter:
    """Stands for a database without a server."""

    has_statements = False

    def start(self) -> None:
        """Begin a stretch."""

    def stop(self) -> DatabaseCosts:
        """Return that nothing is known."""
        return DatabaseCosts()

    def top_statements(self, count: int) -> list[tuple[Any, ...]]:
        """Return nothing."""
        return []

    def written_bytes(self) -> float:
        """Return nothing."""
        return 0.0


class PostgresMeter:
    """Measures a PostgreSQL server between `start` and `stop`.

    `postmaster` is the process of a server that serves nothing else, `folder` its data: then CPU, WAL and full-page
    images are exact. Of a shared server only the backends of this database are counted, and WAL is everybody's.
    """

    def __init__(self, conninfo: str, name: str, *, postmaster: int | None = None, folder: Path | None = None) -> None:
        import psycopg

        self.name = name
        self.postmaster = postmaster
        self.folder = folder
        self.session = psycopg.connect(conninfo, autocommit=True)
        self.has_statements = self._load_statements()

    def start(self) -> None:
        """Begin a stretch."""
        if self.has_statements:
            self.session.execute("SELECT pg_stat_statements_reset()")
        self._cpu = self._cpu_by_process()
        self._lsn = self._flushed_lsn()

    def stop(self) -> DatabaseCosts:
        """Return what the stretch since `start` has cost."""
        lsn, cpu = self._flushed_lsn(), self._cpu_by_process()
        row = self.session.execute("SELECT pg_wal_lsn_diff(%s, %s)", [lsn, self._lsn]).fetchone()
        costs = DatabaseCosts(
            cpu_seconds=sum(seconds - self._cpu.get(pid, 0.0) for pid, seconds in cpu.items()),
            wal_bytes=int(row[0]) if row else None,
            full_page_bytes=self._full_page_bytes(self._lsn, lsn),
        )
        if self.has_statements:
            for role, kind, calls in self.session.execute(STATEMENTS, {"name": self.name}):
                costs.statements.setdefault(role, {})[kind] = calls
        return costs

    def top_statements(self, count: int) -> list[tuple[Any, ...]]:
        """Return role, calls, rows, milliseconds, WAL bytes and text of the most frequent statements."""
        facts = {"name": self.name, "count": count}
        return self.session.execute(TOP, facts).fetchall() if self.has_statements else []

    def written_bytes(self) -> float:
        """Return how much WAL was ever written."""
        row = self.session.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')").fetchone()
        return float(row[0]) if row else 0.0

    def _load_statements(self) -> bool:
        import psycopg

        try:
            self.session.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            self.session.execute("SELECT count(*) FROM pg_stat_statements")
        except psycopg.Error:
            return False
        return True

    def _cpu_by_process(self) -> dict[int, float]:
        if self.postmaster is not None:
            return {self.postmaster: tree_cpu_seconds(self.postmaster)}
        backends = self.session.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", [self.name]).fetchall()
        return {pid: tree_cpu_seconds(pid) for (pid,) in backends}

    def _flushed_lsn(self) -> str:
        self.session.execute("SELECT txid_current()")  # its commit flushes all that lies before
        row = self.session.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        return str(row[0]) if row else "0/0"

    def _full_page_bytes(self, start: str, end: str) -> int | None:
        """Return what full-page images take of the WAL in between, None where it cannot be read."""
        from tests.servers.postgres import as_server_user, binary

        if self.folder is None or start == end:
            return None
        command = [binary("pg_waldump"), "--stats", "-p", str(self.folder / "pg_wal"), "-s", start, "-e", end]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder.parent, check=False, **as_server_user()
        )
        total = next((line for line in done.stdout.splitlines() if line.startswith("Total")), "")
        sizes = re.findall(r"(\d+) +\[", total)
        return int(sizes[1]) if len(sizes) > 1 else None


class RedisMeter:
    """Reads how much CPU time a Redis server has used, and how many messages the channel layer has put in channels."""

    def __init__(self, url: str) -> None:
        import redis

        self.session = redis.Redis.from_url(url)

    def read(self) -> dict[str, float]:
        """Return both, as counted since the server started."""
        cpu: Any = self.session.info("cpu")
        commands: Any = self.session.info("commandstats")
        # The pub/sub layer publishes a message once. The core layer puts it into the channel of each process that
        # listens, and then lets the channel expire; nothing else here uses EXPIRE for every message.
        calls = [commands.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("publish", "expire")]
        return {"redis": cpu["used_cpu_user"] + cpu["used_cpu_sys"], "layer messages": sum(calls)}
