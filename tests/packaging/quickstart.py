"""Do what docs/quickstart.md says, as it is written there, with the built wheel in place of PyPI's package.

    python -m tests.packaging.quickstart dist/*.whl

Its files are made of its blocks, its commands are run, and an agent with a tool has to answer over curl. The model
is the page's own, which needs no key. The page with the chat is rendered; tests/browser shows that such a page works.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.packaging.projects import ROOT, Project, answers, free_port, run, until, uv

PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
NAME = r"(?:mysite/[\w/]+|scripted_model)\.\w+"
FILE = re.compile(rf"`({NAME})`[^\n]*:\n\n```(?:python|html)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILES = [f"mysite/{name}" for name in ("settings.py", "urls.py", "asgi.py", "agents.py", "templates/chat.html")]
FILES.append("scripted_model.py")
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PACKAGE = "pip install 'django-durable-agents[daphne]'"
PAGE_OF_THE_CHAT = """
from django.contrib.auth.models import User
from django.test import Client
client = Client(headers={"host": "localhost"})
client.force_login(User.objects.get())
print(client.get("/").content.decode())
"""
SIGN_IN = {"USERNAME": "you", "EMAIL": "you@example.org", "PASSWORD": "password"}


def begin(folder: Path, wheel: Path) -> Project:
    """Step 1, with the wheel; then every file of the page, those that are there already with its lines at their end."""
    install = SHELL.findall(PAGE)[0]
    assert PACKAGE in install, "the page installs something else"
    wheel_install = f"{uv()} pip install --quiet 'django-durable-agents[daphne] @ {wheel.resolve().as_uri()}'"
    pinned = f"{wheel_install} --constraint {ROOT / 'requirements' / 'pins.txt'}"
    run("bash", "-euo", "pipefail", "-c", install.replace(PACKAGE, pinned), cwd=folder)
    project = Project(folder / "mysite", folder / "venv" / "bin" / "python")
    files = FILE.findall(PAGE)
    assert [name for name, _ in files] == FILES
    for name, text in files:
        (project.folder / name).parent.mkdir(exist_ok=True)
        if name != "mysite/settings.py":  # the only one that is added to
            (project.folder / name).unlink(missing_ok=True)
        project.paste(name, text)
    return project


def requests(port: int) -> list[str]:
    """The page's requests, for the server at this port."""
    [block] = [block for block in SHELL.findall(PAGE) if block.startswith("curl")]
    here = block.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    return re.split(r"^(?=curl)", here, flags=re.MULTILINE)[1:]


def answer_to(request: str) -> Any:
    """Run one of them; return the JSON of its answer."""
    return json.loads(run("bash", "-c", request.replace("curl", "curl --silent --show-error", 1)))


def has_in_stream(request: str, text: str) -> bool:
    """Run one of them that does not end by itself; return whether a line with this text comes within 30 seconds."""
    command = request.replace("curl", "exec curl --silent --no-buffer --max-time 30", 1)
    with subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = any(text in line for line in process.stdout)
        process.terminate()
    return found


def follow(project: Project) -> None:
    """Steps 4 and 5."""
    said = project.manage("check", "--fail-level", "WARNING")
    assert "no issues" in said, said
    project.manage("migrate", "--verbosity", "0")
    facts = {f"DJANGO_SUPERUSER_{name}": value for name, value in SIGN_IN.items()}
    project.manage("createsuperuser", "--no-input", **facts)
    port = free_port()
    with project.running("-u", "scripted_model.py") as model:
        until(lambda: "\n" in model(), model)
        env = dict(item.split("=") for item in model().split())
        with (
            project.running("manage.py", "qcluster", **env) as workers,
            project.running("manage.py", "runserver", "--noreload", str(port)) as web,
        ):
            until(lambda: answers(port), web)
            until(lambda: "ready for work" in workers(), workers)
            create, watch, read = requests(port)
            thread = answer_to(create)
            until(lambda: status(project, thread["id"]) == "completed", workers)
            # A stream stays open while the thread is at rest, so curl has to be ended.
            assert has_in_stream(watch.replace("THE-ID", thread["id"]), "You rolled three dice.")
            parts = answer_to(read.replace("THE-ID", thread["id"]))["results"][-1]["parts"]
            rolled = next(part["output"] for part in parts if part["type"] == "tool-roll_dice")
            assert len(rolled) == 3, parts
            assert parts[-1]["text"] == "You rolled three dice.", parts
            logged = [line for line in workers().splitlines() if line.endswith(f" thread={thread['id']} kind=-")]
            assert any(" INFO commit_step " in line for line in logged), workers()
            assert '<durable-chat api-url="/agents/"' in project.shell(PAGE_OF_THE_CHAT), "the page has no chat"


def status(project: Project, thread_id: str) -> str:
    """The thread's status as the page's own lines of Python read it."""
    code = f"from durable_agents import get_thread\nprint(get_thread({thread_id!r}).status)"
    return project.shell(code).splitlines()[-1]


def main() -> None:
    """Do it in a temporary folder."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="quickstart-") as folder:
        follow(begin(Path(folder), Path(sys.argv[1])))
    print(f"The quickstart works as it is written ({time.monotonic() - began:.0f} s).")


if __name__ == "__main__":
    main()
