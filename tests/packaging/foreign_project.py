"""Install the built wheel into somebody else's project, far from this checkout, and see that it is at home there.

    python -m tests.packaging.foreign_project dist/*.whl

The project (`mysite` beside this file) has users with UUIDs, ATOMIC_REQUESTS, LoginRequiredMiddleware, a camel-case
renderer, pagination and JWT of its own, DEBUG off and manifest static files. To it come the lines that the README has,
and then those that our own system checks print. In about a minute: no check of ours is left, migrations apply, an agent
answers over REST and the websocket, Celery does a tool's work, and the project's own row points to the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from tests.packaging.projects import ROOT, Project, answers, free_port, run, until, uv
from tests.servers.model import Call, ModelUnderTest, Reply

FILES = Path(__file__).parent / "mysite"
FOREIGN = ("celery", "djangorestframework-camel-case", "djangorestframework-simplejwt")
PASSWORD = "correct horse battery staple"
LISTING = """
import importlib.util, pathlib
package = pathlib.Path(importlib.util.find_spec("durable_agents").origin).parent
print(*(path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()), sep="\\n")
"""
LAYER = "durable_agents.W004"
"""The check whose lines name a Redis."""


class Foreign(Project):
    """The project that has its own way in everything."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, folder / "venv" / "bin" / "python")

    def make(self, wheel: Path) -> None:
        """Make the environment, put the wheel into it, `startproject`, and the project's own files."""
        run(uv(), "venv", "--quiet", "--python", "3.11", self.folder / "venv")
        self.install(wheel, "daphne,redis", *FOREIGN)
        run(self.python, "-m", "django", "startproject", "mysite", self.folder, cwd=self.folder)
        shutil.copytree(FILES.with_name("people"), self.folder / "people")
        for name in ("__init__.py", "urls.py", "asgi.py", "models.py", "agents.py", "celery.py", "tasks.py"):
            shutil.copy(FILES / name, self.folder / "mysite" / name)
        (self.folder / "queue").mkdir()
        self.set((FILES / "added_to_settings.txt").read_text(encoding="utf-8"))

    def set(self, lines: str) -> None:
        """Put lines at the end of the settings."""
        self.paste("mysite/settings.py", lines)

    def complaints(self) -> dict[str, str]:
        """What our own checks say under `check --deploy`: their ids, each with the lines that are to be pasted."""
        told = re.split(r"^(?=\S)", self.manage("check", "--deploy"), flags=re.MULTILINE)
        found = {}
        for message in told:
            ours = re.search(r"\((durable_agents\.\w+)\)", message)
            if ours:
                found[ours[1]] = "".join(f"{line}\n" for line in re.findall(r"^    (.*)$", message, re.MULTILINE))
        return found


class Client:
    """A client of the project's site."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.token = ""

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of the answer; redirects are not followed."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}/{path}"
        opener = urllib.request.build_opener(NoRedirect)
        try:
            with opener.open(urllib.request.Request(url, data, headers, method=method), timeout=20) as response:
                return response.status, read(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, read(error.read())

    def sign_in(self, name: str) -> None:
        """Get a token of the project's own kind."""
        status, answer = self.ask("POST", "token/", {"username": name, "password": PASSWORD})
        assert status == 200, answer
        self.token = answer["access"]


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Shows a redirect as what it is."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


def read(data: bytes) -> Any:
    """The JSON, or the text where it is none."""
    with contextlib.suppress(ValueError):
        return json.loads(data)
    return data.decode("utf-8", "replace")


def see_that_checks_are_content(project: Foreign) -> None:
    """Paste what they print until they print nothing more."""
    told = project.complaints()
    assert {"durable_agents.W001", LAYER} <= set(told), f"expected to be told of SQLite and the channel layer: {told}"
    for check, lines in told.items():
        assert lines, f"{check} says no lines to paste"
        project.set(f"\n# {check}\n{lines}")
    left = project.complaints()
    assert not left, f"after pasting: {left}"
    print(f"Pasted the lines of {', '.join(sorted(told))}: no check of ours is left.")
    if not answers(6379):
        print("No Redis at the address that the lines name: the chat goes by polling.")
        project.set('\nCHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}\n')


def see_that_the_database_is_made(project: Foreign) -> None:
    """Migrations apply, the project's own among them, and none is missing; static files are collected."""
    project.manage("makemigrations", "people", "mysite")
    project.manage("migrate", "--verbosity", "0")
    project.manage("makemigrations", "--check", "--dry-run")
    project.manage("collectstatic", "--no-input", "--verbosity", "0")
    manifest = (project.folder / "collected" / "staticfiles.json").read_text(encoding="utf-8")
    assert "durable_agents/durable-agents.js" in manifest
    project.shell(
        "from people.models import Person\n"
        f"for name in ('ada', 'eve'): Person.objects.create_user(name, password={PASSWORD!r})\n"
        f"Person.objects.create_superuser('root', password={PASSWORD!r})"
    )
    print("Migrations apply and none is missing; static files have their hashed names.")


def see_that_an_agent_answers(client: Client, model: ModelUnderTest) -> str:
    """Over REST, with the project's tokens and without its renderer; nobody else sees the thread. Return its id."""
    status, refused = client.ask("GET", "agents/threads/")
    assert status == 401, (status, refused)
    client.sign_in("ada")
    call = Call(name="open_ticket", arguments={"subject": "A broken cup"})
    model.answer_with(Reply(text="I open a ticket.", calls=(call,)), Reply(text="It is open."), Reply(text="Again."))
    status, thread = client.ask("POST", "agents/threads/", {"agent": "support", "prompt": "My cup is broken."})
    assert status == 201, (status, thread)
    assert "created_at" in thread, thread  # the project's renderer would say createdAt
    until(lambda: client.ask("GET", f"agents/threads/{thread['id']}/")[1]["status"] == "completed", "an answer")
    _, page = client.ask("GET", f"agents/threads/{thread['id']}/messages/")
    assert {"next", "previous", "results"} <= set(page), page  # the project's pages would have a count
    assert "count" not in page, page
    parts = page["results"][-1]["parts"]
    assert [part["text"] for part in parts if part["type"] == "text"] == ["I open a ticket.", "It is open."], parts
    stranger = Client(client.port)
    stranger.sign_in("eve")
    assert stranger.ask("GET", f"agents/threads/{thread['id']}/")[0] == 404
    print("An agent answered over REST, with a tool; a stranger does not find the thread.")
    return str(thread["id"])


def see_that_celery_does_a_part_of_the_work(project: Foreign, client: Client, model: ModelUnderTest) -> None:
    """A deferred tool leaves its work to a task of Celery, which adds the result."""
    call = Call(name="report", arguments={"month": "May"})
    model.answer_with(Reply(calls=(call,)), Reply(text="There were three."))
    status, thread = client.ask("POST", "agents/threads/", {"agent": "support", "prompt": "How many in May?"})
    assert status == 201, (status, thread)
    address = f"agents/threads/{thread['id']}/"
    until(lambda: client.ask("GET", address)[1]["status"] == "awaiting_tool_results", "a call that waits")
    with project.running("-m", "celery", "-A", "mysite", "worker", "--pool", "solo", "--loglevel", "INFO") as celery:
        until(lambda: client.ask("GET", address)[1]["status"] == "completed", celery, seconds=90)
    parts = client.ask("GET", f"{address}messages/")[1]["results"][-1]["parts"]
    [output] = [part["output"] for part in parts if part["type"] == "tool-report"]
    assert output == {"month": "May", "tickets": 3}, parts
    print("A task of Celery added the result of a deferred tool.")


async def talk(client: Client, thread: str) -> str:
    """Ask once more over the websocket; return what was streamed."""
    headers = {"Authorization": f"Bearer {client.token}"}
    url = f"ws://127.0.0.1:{client.port}/ws/agents/"
    protocol: Any = "durable-agents.v1"
    text = ""
    async with asyncio.timeout(30), connect(url, additional_headers=headers, subprotocols=[protocol]) as wire:
        await wire.send(json.dumps({"type": "hello", "version": 1}))
        await wire.send(json.dumps({"type": "subscribe", "id": "s", "thread": thread}))
        await wire.send(json.dumps({"type": "send", "id": "m", "thread": thread, "prompt": "Again, please."}))
        async for frame in wire:
            heard = json.loads(frame)
            text += json.dumps(heard) if heard["type"] in {"delta", "step", "message"} else ""
            if heard["type"] == "thread" and heard["status"] == "completed" and "Again." in text:
                break
    return text


def see_that_rows_belong_together(project: Foreign, thread: str) -> None:
    """The project's row was made by the tool, once, and points to the thread; the owner is a person with a UUID."""
    found = project.shell(
        "from mysite.models import Ticket\n"
        "[ticket] = Ticket.objects.select_related('thread__owner')\n"
        "print(ticket.thread_id, ticket.subject, ticket.thread.owner.username, len(str(ticket.thread.owner_id)))"
    )
    assert found.splitlines()[-1] == f"{thread} A broken cup ada 36", found
    print("The project's own row points to the thread.")


def see_that_the_admin_works(project: Foreign, thread: str) -> None:
    """Its pages find their static files by their hashed names."""
    found = project.shell(
        "from django.test import Client\n"
        "from people.models import Person\n"
        "client = Client(headers={'host': 'localhost'})\n"
        "client.force_login(Person.objects.get(username='root'))\n"
        f"page = client.get('/admin/durable_agents/thread/{thread}/change/')\n"
        "print(page.status_code, 'My cup is broken.' in page.content.decode())"
    )
    assert found.splitlines()[-1] == "200 True", found
    print("The admin shows the conversation.")


def see_that_the_wheel_is_whole(project: Foreign) -> None:
    """What lies in the package's folder of this checkout lies there too: modules, templates, static files, schemas."""
    listed = run(project.python, "-c", LISTING, cwd=project.folder)
    lost = files_of(ROOT / "durable_agents") - set(listed.splitlines())
    assert {"py.typed", "static/durable_agents/durable-agents.js"} <= set(listed.splitlines()), listed
    assert not lost, f"not in the wheel: {sorted(lost)}"


CHAT_PAGE = """
import re
from django.template import Context, Template
from django.utils.translation import override

with override("de"):
    tags = "{% durable_agents_importmap %}{% durable_chat agent='host' %}"
    page = Template("{% load durable_agents %}" + tags).render(Context())
print(re.findall(r'src="([^"]+)"', page)[0])
print(re.findall(r'"django-durable-agents": "([^"]+)"', page)[0])
print("Senden" in page)
"""


def see_that_a_page_can_have_a_chat(project: Foreign) -> None:
    """The tags lead to the hashed names of the minified files, and have their texts in the language of the page."""
    script, module, is_german = project.shell(CHAT_PAGE).split()[-3:]
    assert re.fullmatch(r"/static/durable_agents/durable-chat\.min\.[0-9a-f]{12}\.js", script), script
    assert re.fullmatch(r"/static/durable_agents/durable-agents\.min\.[0-9a-f]{12}\.js", module), module
    assert is_german == "True"
    print("The tags of the chat lead to hashed files and speak German.")


def files_of(package: Path) -> set[str]:
    """The files of a package, by their paths in it; what running it leaves behind is none."""
    found = (path.relative_to(package) for path in package.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


def live_in(project: Foreign) -> None:
    """Everything that must hold in the project."""
    see_that_the_wheel_is_whole(project)
    see_that_checks_are_content(project)
    see_that_the_database_is_made(project)
    see_that_a_page_can_have_a_chat(project)
    port = free_port()
    client = Client(port)
    with (
        ModelUnderTest() as model,
        project.running("manage.py", "qcluster", MODEL_URL=model.url) as workers,
        project.running("-m", "daphne", "-p", str(port), "mysite.asgi:application") as web,
    ):
        until(lambda: answers(port), web)
        until(lambda: "ready for work" in workers(), workers)
        thread = see_that_an_agent_answers(client, model)
        heard = asyncio.run(talk(client, thread))
        assert "Again." in heard, heard
        print("It answered over the websocket as well.")
        see_that_celery_does_a_part_of_the_work(project, client, model)
    see_that_rows_belong_together(project, thread)
    see_that_the_admin_works(project, thread)


def main() -> None:
    """Do it in a temporary folder."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="foreign-project-") as folder:
        project = Foreign(Path(folder))
        project.make(Path(sys.argv[1]))
        live_in(project)
    print(f"The wheel is at home in a new project ({time.monotonic() - began:.0f} s).")


if __name__ == "__main__":
    main()
