"""A new Django project, made as the quickstart says, with a page for each chat.

Its model repeats what it hears.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo_project.model_server import Body
from tests.frontends.snippets import ELEMENT, TAG
from tests.packaging.projects import ROOT, Project, answers, free_port, until
from tests.packaging.quickstart import begin
from tests.servers.model import Call, ModelUnderTest, Reply, Status

USER = "demo"
STORY = " ".join(f"word-{number}" for number in range(80))
FAILED: set[str] = set()
"""The messages to which the model has answered with an error."""
HEAD = '<!doctype html><html lang="en"><title>Chat</title>\n'
BUNDLED = '{% load static %}<div id="chat" data-thread="{{ thread.pk }}"></div>'
PAGES = """

from django.shortcuts import render
from durable_agents import create_thread


@login_required(login_url="admin:login")
def page(request, name):
    thread = create_thread("support", owner=request.user)
    return render(request, [f"try/{name}.html", "try/bundled.html"], {"thread": thread, "script": f"built/{name}.js"})


urlpatterns += [path("try/<slug:name>/", page)]
"""


def made(folder: Path) -> Project:
    """Make the project in this folder, with the wheel of this checkout and the pages."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", ROOT]
    subprocess.run(build, check=True, capture_output=True)
    project = begin(folder, next((folder / "dist").glob("*.whl")))
    for name in ("agents.py", "templates/chat.html"):  # the how-to's agent has another name
        file = project.folder / "mysite" / name
        file.write_text(file.read_text(encoding="utf-8").replace('"host"', '"support"'), encoding="utf-8")
    agents = project.folder / "mysite" / "agents.py"
    asking = agents.read_text(encoding="utf-8").replace("@tool\n", "@tool(needs_approval=True)\n")
    agents.write_text(asking, encoding="utf-8")
    project.paste("mysite/urls.py", PAGES)
    (project.folder / "mysite" / "templates" / "try").mkdir()
    script = '<script type="module" src="{% static script %}"></script>'
    for name, body in {"tag": TAG, "element": ELEMENT, "bundled": BUNDLED + script}.items():
        project.paste(f"mysite/templates/try/{name}.html", HEAD + body)
    return project


def repeated(request: Body) -> Reply | Status:
    """Answer with the words of the last message, and roll dice, tell a slow story or fail once for a user who wants
    that.
    """
    last = request["messages"][-1]
    if last["role"] == "user" and "dice" in last["content"]:
        return Reply(calls=(Call(name="roll_dice", arguments={"count": 3}),))
    if "story" in last["content"]:
        return Reply(text=STORY, delay_seconds=0.1)
    if "fail" in last["content"] and last["content"] not in FAILED:
        FAILED.add(last["content"])
        return Status(status=400)
    return Reply(text=f"Heard: {last['content']}")


@contextmanager
def served(project: Project) -> Iterator[str]:
    """Run the model, the workers and the web server of the project; yield its URL."""
    project.manage("migrate", "--verbosity", "0")
    facts = {"USERNAME": USER, "EMAIL": "demo@example.org", "PASSWORD": USER}
    project.manage(
        "createsuperuser", "--no-input", **{f"DJANGO_SUPERUSER_{key}": value for key, value in facts.items()}
    )
    port = free_port()
    with ModelUnderTest(repeated) as model:
        env = {"OPENAI_API_BASE": model.url, "OPENAI_API_KEY": "none"}
        with (
            project.running("manage.py", "qcluster", **env) as workers,
            project.running("manage.py", "runserver", "--noreload", str(port)) as web,
        ):
            until(lambda: answers(port), web)
            until(lambda: "ready for work" in workers(), workers)
            yield f"http://localhost:{port}"
