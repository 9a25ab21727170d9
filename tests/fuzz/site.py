"""The demo as the fuzzer meets it: processes of its own on an empty database, and threads to do something to."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from demo_project import listening_socket
from demo_project.supervisor import ROOT, Program, Supervisor

HOST = "127.0.0.1"
READY_SECONDS = 60
LEADS_TO = {
    "approve": "Book a table for four at Luigi's at 19:30",
    "reject": "Book a table for four at Luigi's at 19:30",
    "result": "Let me pick a date for the launch",
    "error": "Ask a colleague: do we ship on Friday?",
}
"""What is said to get a call to which this can be done."""
SMALL_TALK = "What can you do?"
EACH = 12
"""Threads that are begun with each of these."""
USERS = ("guest", "demo")
CREATE_USERS = "from demo_project.management.commands.demo import create_users; create_users()"


@contextlib.contextmanager
def running_site(log: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The URL of a running demo, and the tokens of its users by name; everything is gone after, but what it wrote into
    ``log``."""
    with tempfile.TemporaryDirectory() as folder, empty_database(Path(folder)) as database:
        ports = [listening_socket.free_port() for _ in range(2)]
        env = environment(database, model_port=ports[1])
        for command in (["migrate", "--verbosity", "0"], ["shell", "--verbosity", "0", "--command", CREATE_USERS]):
            subprocess.run([sys.executable, "manage.py", *command], cwd=ROOT, env=env, check=True)
        with Supervisor(print) as supervisor:
            for program in programs(env, *ports, log=log):
                supervisor.start(program)
            url = f"http://{HOST}:{ports[0]}"
            wait_for(ports[0])
            yield url, {name: token_of(url, name) for name in USERS}


@contextlib.contextmanager
def empty_database(folder: Path) -> Iterator[str]:
    """The URL of a database without a table: of the server that `TEST_DATABASE_URL` names, else a SQLite file."""
    given = os.environ.get("TEST_DATABASE_URL", "")
    if not given.startswith("postgres"):
        yield f"sqlite:///{folder / 'fuzz.sqlite3'}"
        return
    import psycopg

    name = f"fuzz_{os.getpid()}"
    parts = urlsplit(given)._replace(scheme="postgresql")
    with psycopg.connect(urlunsplit(parts._replace(path="/postgres")), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield urlunsplit(parts._replace(path=f"/{name}"))
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def environment(database: str, *, model_port: int) -> dict[str, str]:
    """Return the environment of the demo's processes: as in production, and nothing of this process's own settings."""
    private = ("DJANGO_SETTINGS_MODULE", "REDIS_URL", "DEMO_MODEL", "OPENAI_API_BASE", "OPENAI_API_KEY")
    env = {name: value for name, value in os.environ.items() if name not in private}
    return env | {
        "DATABASE_URL": database,
        "DEBUG": "0",
        "DEMO_SCRIPTED_URL": f"http://{HOST}:{model_port}/v1",
        "DJANGO_SETTINGS_MODULE": "demo_project.settings",
        "PYTHONPATH": str(ROOT),
        "SECRET_KEY": "only-for-the-fuzzer-of-this-project-0123456789",
    }


def programs(env: Mapping[str, str], web_port: int, model_port: int, *, log: Path) -> list[Program]:
    """Return what runs: the model, the web server, the workers. What they say goes to the end of ``log``."""
    web = ["-m", "daphne", "-v", "0", "-b", HOST, "-p", str(web_port), "tests.fuzz.asgi:application"]
    model = ["-m", "demo_project.scripted_model", "--port", str(model_port)]
    commands = {"model": model, "web server": web, "workers": ["manage.py", "qcluster"]}
    into_log = ["sh", "-c", 'exec "$@" >>"$0" 2>&1', str(log), sys.executable, "-u"]
    return [Program(name=name, command=[*into_log, *command], env=env) for name, command in commands.items()]


def wait_for(port: int) -> None:
    """Return once the site answers; raises `TimeoutError`."""
    deadline = time.monotonic() + READY_SECONDS
    while not listening_socket.is_answering(HOST, port, "/"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"The site did not answer within {READY_SECONDS} seconds.")
        time.sleep(0.2)


def token_of(url: str, name: str) -> str:
    """Return the token of a user of the demo, whose password is his name."""
    answer = httpx.post(f"{url}/api-token-auth/", data={"username": name, "password": name}, trust_env=False)
    token: str = answer.raise_for_status().json()["token"]
    return token


def known_things(url: str, token: str) -> dict[str, Any]:
    """Begin threads and return what there is to name: ids of ``threads`` and of their first ``messages``, and for each
    thing that can be done to a call some ``calls`` with their threads."""
    headers = {"Authorization": f"Token {token}"}
    with httpx.Client(base_url=f"{url}/agents/", headers=headers, timeout=20, trust_env=False) as client:
        threads = [begun(client, SMALL_TALK) for _ in range(EACH)]
        waiting = {action: [begun(client, prompt) for _ in range(EACH)] for action, prompt in LEADS_TO.items()}
        return {
            "threads": threads,
            "messages": [client.get(f"threads/{thread}/messages/").json()["results"][0]["id"] for thread in threads],
            "calls": {
                action: [(thread, waiting_call(client, thread)) for thread in begun_for]
                for action, begun_for in waiting.items()
            },
        }


def begun(client: httpx.Client, prompt: str) -> str:
    """Return the id of a new thread."""
    made = client.post("threads/", json={"agent": "assistant", "prompt": prompt}).raise_for_status()
    thread_id: str = made.json()["id"]
    return thread_id


def waiting_call(client: httpx.Client, thread: str) -> str:
    """Return the id of the call that a thread waits for, once it does; raises `TimeoutError`."""
    deadline = time.monotonic() + READY_SECONDS
    while not (found := client.get(f"threads/{thread}/tool-calls/").json()["results"]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Thread {thread} made no tool call: {client.get(f'threads/{thread}/').text}")
        time.sleep(0.1)
    call_id: str = found[0]["tool_call_id"]
    return call_id
