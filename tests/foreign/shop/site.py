"""The shop's project in an environment of its own, its processes, and the people who use it."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.packaging.projects import ROOT, Project, answers, free_port, run, uv

FILES = Path(__file__).parent / "project"
PASSWORD = "correct horse battery staple"
WEBHOOK_SECRET = "shared with the warehouse"
SEED = f"""
from django.contrib.auth.models import Permission
from people.models import Organisation, User
from shop.models import Order

def person(name, organisation=None, *permissions, **fields):
    user = User.objects.create_user(name, password={PASSWORD!r}, organisation=organisation, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user

acme = Organisation.objects.create(name="Acme")
globex = Organisation.objects.create(name="Globex", may_refund=False)
ada = person("ada", acme, first_name="Ada", last_name="Adams")
bob = person("bob", acme, "approve_refund", "view_all_orders", first_name="Bob", last_name="Brown")
person("cem", acme)
eve = person("eve", globex)
User.objects.create_superuser("root", password={PASSWORD!r})
User.objects.create_superuser("sue", password={PASSWORD!r}, organisation=acme, first_name="Sue")
Order.objects.create(number=7, organisation=acme, customer=ada, total=20)
Order.objects.create(number=8, organisation=acme, customer=bob, total=30)
Order.objects.create(number=9, organisation=globex, customer=eve, total=40)
"""
AT_REST = ("completed", "failed", "stopped")


class Shop(Project):
    """The project, with the wheel installed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, folder.with_name("venv") / "bin" / "python")

    def make(self, wheel: Path, *, python: str) -> None:
        """Make the environment, copy the project, create its tables and static files, and add people and orders."""
        run(uv(), "venv", "--quiet", "--python", python, self.folder.with_name("venv"))
        shutil.copytree(FILES, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        pins = (ROOT / "requirements" / "pins.txt").read_text(encoding="utf-8")
        if python != "3.11":  # the pin of Django is for the Python that Django 6 does not support
            pins = re.sub(r"^django<6$", "", pins, flags=re.MULTILINE)
        self.pins = self.folder.with_name("pins.txt")
        self.pins.write_text(pins, encoding="utf-8")
        self.install(wheel, "daphne,postgres,redis", "django-csp>=4", "uvicorn", "websockets", "whitenoise")
        self.manage("makemigrations", "people", "shop")
        self.manage("migrate", "--verbosity", "0")
        self.manage("collectstatic", "--no-input", "--verbosity", "0")
        self.shell(SEED)

    def described(self) -> str:
        """Return the versions and servers that the shop uses."""
        code = (
            "import sys, django, durable_agents\n"
            "from django.db import connection\n"
            "from django.conf import settings\n"
            "print('Python', sys.version.split()[0], 'Django', django.__version__, connection.vendor, "
            "'Redis' if 'redis' in settings.Q_CLUSTER else 'ORM broker', durable_agents.__file__)"
        )
        return self.shell(code).splitlines()[-1]

    def value(self, code: str) -> Any:
        """Run lines of Python in the project; return what they have put into `value`, which must be JSON."""
        printed = "\nimport json\nprint(json.dumps(value, default=str))"
        return json.loads(self.shell(code + printed).splitlines()[-1])


class Process:
    """A process of the shop, which may be stopped, killed and started again."""

    def __init__(self, shop: Shop, *command: str, ready: Callable[[Process], Any], **env: str) -> None:
        self.shop, self.command, self.env, self.ready = shop, command, env, ready
        self.log = shop.folder.with_name(f"{'-'.join(command[:2]).replace('/', '-')}.log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self._began = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [self.shop.python, *self.command],
                cwd=self.shop.folder,
                env=self.shop.env | self.env,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            until(lambda: self.ready(self), self.said, seconds=90)
        except BaseException:
            self.kill()
            raise

    @property
    def runs(self) -> bool:
        """Whether it has been started and not been ended."""
        return self._process is not None

    def said(self) -> str:
        """Return what it has written since its start."""
        return self.log.read_bytes()[self._began :].decode("utf-8", "replace")

    def kill(self) -> None:
        """SIGKILL it and its children, as when a machine loses its power."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGTERM it, as a deploy does, and wait for its end."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
        self.kill()


def cluster(shop: Shop, **env: str) -> Process:
    """Return the workers of the shop, whose log is in the language of the site."""
    return Process(shop, "manage.py", "qcluster", ready=lambda process: "bereit für Arbeit" in process.said(), **env)


@contextlib.contextmanager
def web(shop: Shop, server: str) -> Iterator[str]:
    """Run a web server of the shop, daphne or uvicorn; yield its URL."""
    port = free_port()
    port_option = "-p" if server == "daphne" else "--port"
    command = ("-m", server, port_option, str(port), "mysite.asgi:application")
    process = Process(shop, *command, ready=lambda _: answers(port))
    process.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()


class Person:
    """Somebody with a session at one of the shop's web servers."""

    def __init__(self, site: str, name: str) -> None:
        self.site, self.name = site, name
        self.http = httpx.Client(base_url=site, timeout=40)
        self.http.get("/login/")
        form = {"username": name, "password": PASSWORD, "csrfmiddlewaretoken": self.http.cookies["csrftoken"]}
        signed_in = self.http.post("/login/", data=form)
        assert signed_in.status_code == 302, signed_in.text

    @property
    def headers(self) -> dict[str, str]:
        """The headers with which the page's scripts send requests."""
        return {"X-CSRFToken": self.http.cookies["csrftoken"]}

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Get a path of the API."""
        return self.http.get(f"/agents/{path}", **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """Post JSON, or what the options name, to a path of the API."""
        if not options:
            options["json"] = {} if body is None else body
        return self.http.post(f"/agents/{path}", headers=self.headers, **options)

    def delete(self, path: str) -> httpx.Response:
        """Delete what is at a path of the API."""
        return self.http.delete(f"/agents/{path}", headers=self.headers)

    def ask(self, prompt: str, **fields: Any) -> str:
        """Start a thread; return its id."""
        response = self.post("threads/", {"agent": "support", "prompt": prompt, **fields})
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def send(self, thread: str, prompt: str) -> None:
        """Send a message to a thread."""
        response = self.post(f"threads/{thread}/messages/", {"prompt": prompt})
        assert response.status_code == 202, response.text

    def thread(self, thread: str) -> Any:
        """Return a thread."""
        return self.get(f"threads/{thread}/").json()

    def wait(self, thread: str, *states: str) -> Any:
        """Wait until the thread has one of these states, by default until it is at rest; return it."""

        def reached() -> Any:
            found = self.thread(thread)
            return found if found["status"] in (states or AT_REST) else None

        return until(reached, lambda: f"{self.thread(thread)} {self.messages(thread)}")

    def messages(self, thread: str) -> list[Any]:
        """Return the messages of a thread."""
        found: list[Any] = self.get(f"threads/{thread}/messages/").json()["results"]
        return found

    def answer(self, thread: str) -> str:
        """Wait until the run has ended well; return the text of its last answer."""
        found = self.wait(thread)
        assert found["status"] == "completed", found
        return text_of(self.messages(thread)[-1])

    def call(self, thread: str, tool: str, *states: str) -> Any:
        """Wait until the last call of a tool has one of these states; return it."""

        def reached() -> Any:
            calls = self.get(f"threads/{thread}/tool-calls/").json()["results"]
            found = [call for call in calls if call["tool_name"] == tool]
            return found[-1] if found and found[-1]["status"] in states else None

        return until(reached, lambda: self.get(f"threads/{thread}/tool-calls/").text)

    def decide(self, thread: str, call: Any, decision: str = "approve", **body: Any) -> httpx.Response:
        """Approve or reject a call."""
        return self.post(f"threads/{thread}/tool-calls/{call['tool_call_id']}/{decision}/", body)

    def part(self, thread: str, tool: str) -> Any:
        """Return the last part of a tool as this person's page shows it."""
        parts = [part for message in self.messages(thread) for part in message["parts"]]
        return [part for part in parts if part["type"] == f"tool-{tool}"][-1]


SignIn = Callable[[str, str], Person]
"""Signs somebody in at a site."""


def text_of(message: Any) -> str:
    """Return the text of a message."""
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def until(condition: Callable[[], Any], what: Callable[[], str], *, seconds: float = 40) -> Any:
    """Wait for something to come true and return it; fail with what is known otherwise."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"Not within {seconds} s: {what()}"
        time.sleep(0.1)
    return found


def warehouse_says(site: str, body: dict[str, Any], *, secret: str = WEBHOOK_SECRET) -> httpx.Response:
    """Call the shop's webhook as the warehouse does: with a signature of the body."""
    content = json.dumps(body).encode()
    signature = hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()
    return httpx.post(f"{site}/webhooks/warehouse/", content=content, headers={"X-Signature": signature})
