"""Install a wheel into the shop, and run the how-tos against its processes."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import redis
from psycopg import sql

from tests.foreign.shop.site import Shop
from tests.packaging.projects import ROOT

HOW_TOS = Path(__file__).parent / "howto"
SAMPLE = (
    "test_ai_sdk.py::test_a_waiting_response_continues_after_an_approval[daphne]",
    "test_ai_sdk.py::test_a_waiting_response_continues_after_an_approval[uvicorn]",
    "test_approvals.py::test_a_permission_decides_who_approves_a_refund",
    "test_fallback_models.py::test_the_next_model_answers_after_all_attempts_of_the_first",
    "test_shared_threads.py::test_an_approval_stays_open_when_somebody_writes_who_may_not_decide",
    "test_tools.py::test_a_webhook_delivers_a_deferred_result",
)
"""A tenth of the tests, with both web servers."""


def parsed() -> tuple[argparse.Namespace, list[str]]:
    """Return the options of the command, and those for pytest."""
    parser = argparse.ArgumentParser(prog="python -m tests.foreign.shop", description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", default="3.11", help="version of the shop's Python; from 3.12 on, with Django 6")
    parser.add_argument("--sqlite", action="store_true", help="use SQLite, also as the queue")
    parser.add_argument("--sample", action="store_true", help="run a tenth of the tests")
    return parser.parse_known_args()


@contextlib.contextmanager
def servers(*, name: str) -> Iterator[dict[str, str]]:
    """Yield the environment with a database of this run and a Redis, as far as they answer on this machine."""
    with contextlib.ExitStack() as stack:
        env = {}
        for variable, server in (("SHOP_DATABASE_URL", database(name)), ("SHOP_REDIS_URL", broker(name))):
            try:
                env[variable] = stack.enter_context(server)
            except (psycopg.OperationalError, redis.RedisError) as error:
                print(f"Without {variable}: {error}".strip())
        yield env


@contextlib.contextmanager
def database(name: str) -> Iterator[str]:
    """Create a PostgreSQL database, yield its URL, and drop it at the end."""
    default = f"postgres://{getpass.getuser()}@127.0.0.1:5432/postgres"
    server = os.environ.get("CI_DATABASE_URL", default).rpartition("/")[0]
    with psycopg.connect(f"{server}/postgres", autocommit=True, connect_timeout=3) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield f"{server}/{name}"
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextlib.contextmanager
def broker(name: str) -> Iterator[str]:
    """Yield the URL of a Redis that answers; delete the keys of this run at the end."""
    url = os.environ.get("CI_REDIS_URL", "redis://127.0.0.1:6379/15")
    with contextlib.closing(redis.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3)) as client:
        client.ping()
        try:
            yield url
        finally:
            for key in client.scan_iter(f"*{name}*"):
                client.delete(key)


def how_tos(options: argparse.Namespace, others: list[str], folder: Path) -> int:
    """Run the tests in a pytest of this environment; the processes that they start belong to the shop's."""
    tests = [str(HOW_TOS / one) for one in SAMPLE] if options.sample else [str(HOW_TOS)]
    command = [sys.executable, "-m", "pytest", "-n", "0", "-m", "", "-o", "asyncio_mode=auto", *others, *tests]
    env = os.environ | {"SHOP_FOLDER": str(folder)}
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


def main() -> int:
    """Do it in a temporary folder."""
    began = time.monotonic()
    options, others = parsed()
    name = f"shop_{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="shop-") as temporary:
        chosen = contextlib.nullcontext({}) if options.sqlite else servers(name=name)
        with chosen as env:
            os.environ.update(env, SHOP_NAME=name)
            shop = Shop(Path(temporary) / "project")
            shop.make(options.wheel, python=options.python)
            print(f"The shop stands ({time.monotonic() - began:.0f} s): {shop.described()}.", flush=True)
            code = how_tos(options, others, shop.folder)
    print(f"The how-tos in the shop took {time.monotonic() - began:.0f} s.")
    return code


if __name__ == "__main__":
    sys.exit(main())
