"""Web servers, workers and scripts of a project with times of its own kind, on this test's database."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from django.db import connections
from rest_framework.authtoken.models import Token

from durable_agents import lifecycle
from tests.api.calls import person
from tests.chat.server import Server
from tests.processes import database_url
from tests.servers.model import ModelUnderTest, Reply
from tests.workers import ROOT, Cluster, running, until

Env = dict[str, str]
SETUP = """
from datetime import *
from django.utils import timezone
from durable_agents import *
from durable_agents.models import *
"""
INTERPRETER = """
import contextlib, io, json, sys, traceback

import django

django.setup()
from django.db import connections

for line in sys.stdin:
    printed, error = io.StringIO(), ""
    try:
        with contextlib.redirect_stdout(printed):
            exec(json.loads(line), {})
    except Exception:
        error = traceback.format_exc()
    connections.close_all()
    print(json.dumps([printed.getvalue().strip(), error]), flush=True)
"""
KINDS: dict[str, Env] = {
    "naive": {"TEST_USE_TZ": "0", "TEST_TIME_ZONE": "Asia/Kolkata"},
    "naive-with-summers": {"TEST_USE_TZ": "0", "TEST_TIME_ZONE": "America/Los_Angeles"},
    "aware-in-a-local-database": {"TEST_TIME_ZONE": "Asia/Kolkata", "TEST_DATABASE_TIME_ZONE": "Asia/Kolkata"},
}


@pytest.fixture(scope="module")
def model() -> Iterator[ModelUnderTest]:
    """Return the model server of the tests of one file."""
    with ModelUnderTest() as started:
        yield started


@pytest.fixture(
    scope="module",
    params=["naive", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind != "naive")],
)
def env(request: pytest.FixtureRequest, django_db_setup: None, child_env: Env, model: ModelUnderTest) -> Env:
    """Return the environment of processes with such times."""
    return child_env | {"TEST_DATABASE_URL": database_url(), "TEST_MODEL_URL": model.url} | KINDS[request.param]


@pytest.fixture(scope="module")
def workers(env: Env) -> Iterator[Cluster]:
    """Return workers of the project, for the tests of one file: longer, and they would answer other files' threads."""
    with running(env, workers=2) as started:
        yield started


@pytest.fixture(scope="module")
def server(env: Env) -> Iterator[Server]:
    """Return a web server of the project, for the tests of one file."""
    with Server(env, application="demo_project.asgi:application") as started:
        yield started
        assert "Internal Server Error" not in started.log, started.log
        assert "Exception inside application" not in started.log, started.log


@pytest.fixture(autouse=True)
def _afresh(transactional_db: None) -> Iterator[None]:
    """Bring back what the test before has emptied and a worker writes at its birth; close what threads have opened."""
    lifecycle.ensure_pools()
    yield
    connections.close_all()


@pytest.fixture
def cluster(workers: Cluster, model: ModelUnderTest) -> Cluster:
    """Return the workers, whose model says "Hello." until told otherwise."""
    model.answer_with(Reply(text="Hello."))
    model.journal.clear()
    return workers


@pytest.fixture
def model_server(cluster: Cluster, model: ModelUnderTest) -> ModelUnderTest:
    """Return the workers' model."""
    return model


@pytest.fixture(scope="module")
def script(env: Env) -> Iterator[Callable[[str], str]]:
    """Return a function that runs Python in a process of the project, and gives what it printed."""
    with subprocess.Popen(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", INTERPRETER],
        cwd=ROOT,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        sent, answers = process.stdin, process.stdout

        def run(code: str) -> str:
            print(json.dumps(SETUP + code), file=sent, flush=True)
            printed, error = json.loads(answers.readline())
            assert not error, error
            return str(printed)

        yield run


class Api:
    """REST as a member of staff sees it."""

    def __init__(self, url: str) -> None:
        user = person("staff", is_staff=True, is_superuser=True)
        self.key = Token.objects.create(user=user).key
        self.user = user
        self.client = httpx.Client(
            base_url=f"{url}/agents/", headers={"Authorization": f"Token {self.key}"}, trust_env=False, timeout=20
        )

    def get(self, path: str) -> Any:
        """Return what is there."""
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None) -> Any:
        """Post, and return the answer."""
        answer = self.client.post(path, json=body or {})
        assert answer.is_success, answer.text
        return answer.json()

    def thread(self, agent: str = "talker", *, status: str = "completed") -> str:
        """Return the id of a new thread that has come to this status."""
        made = self.post("threads/", {"agent": agent, "prompt": "Hello."})["id"]
        until(lambda: self.get(f"threads/{made}/")["status"] == status, what=lambda: str(self.get(f"threads/{made}/")))
        return str(made)


@pytest.fixture
def api(server: Server) -> Iterator[Api]:
    """Return REST of the running server."""
    one = Api(server.url)
    yield one
    one.client.close()
