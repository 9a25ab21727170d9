"""`manage.py agents_worker --reload` runs the workers with the newest code."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from durable_agents import Agent, create_thread
from durable_agents.agents import registry
from durable_agents.management.commands import agents_worker
from durable_agents.models import Thread
from tests.processes import ROOT
from tests.servers.model import ModelUnderTest, Reply
from tests.workers import READY, at_rest, until

pytestmark = pytest.mark.django_db(transaction=True)

SETTINGS = """from tests.settings import *
INSTALLED_APPS = [*INSTALLED_APPS, "reloaded"]
"""
AGENT = """from durable_agents import Agent
from reloaded.text import TEXT
from tests.project.agents import MODEL

Agent("reloaded", instructions=TEXT, **MODEL)
"""


@dataclass
class Project:
    """A project that a test edits, and the command that runs its workers."""

    folder: Path
    output: Path
    process: subprocess.Popen[bytes]
    model: ModelUnderTest

    @property
    def log(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def write(self, text: str) -> None:
        """Change the module that the agent's module imports."""
        (self.folder / "reloaded/text.py").write_text(text, encoding="utf-8")

    def wait_for_workers(self, count: int) -> None:
        """Wait until so many workers have started since the beginning."""
        until(lambda: len(READY.findall(self.log)) >= count, seconds=60, what=lambda: self.log)

    def instructions(self) -> str:
        """Return the instructions with which a new thread is answered."""
        (thread,) = at_rest(create_thread("reloaded", prompt="Hello."))
        assert thread.status == "completed"
        return str(self.model.journal[-1].body["messages"][0]["content"])


@pytest.fixture(autouse=True)
def _agent() -> Iterator[None]:
    Agent("reloaded", model="openai/test", public=True)
    yield
    registry.remove("reloaded")


@pytest.fixture
def project(worker_env: dict[str, str], model_server: ModelUnderTest, tmp_path: Path) -> Iterator[Project]:
    model_server.answer_with(Reply(text="Hi."))
    (tmp_path / "reloaded").mkdir()
    (tmp_path / "reloaded/__init__.py").touch()
    (tmp_path / "reloaded/agents.py").write_text(AGENT)
    (tmp_path / "reloaded/text.py").write_text('TEXT = "First."\n')
    (tmp_path / "reload_settings.py").write_text(SETTINGS)
    env = {
        **worker_env,
        "DJANGO_SETTINGS_MODULE": "reload_settings",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "TEST_MODEL_URL": model_server.url,
        "TEST_WORKERS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # two edits within a second would otherwise share a cached module
    }
    output = tmp_path / "output"
    with output.open("wb") as file:
        command = [sys.executable, "-m", "django", "agents_worker", "--reload"]
        process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        yield Project(tmp_path, output, process, model_server)
        if process.poll() is None:
            process.terminate()
        process.wait(30)


def test_workers_start_again_with_the_new_code_even_after_a_broken_file(project: Project):
    project.wait_for_workers(1)
    assert project.instructions() == "First."
    project.write("TEXT = (\n")
    until(lambda: "The workers have ended." in project.log, seconds=30, what=lambda: project.log)
    assert "SyntaxError" in project.log
    project.write('TEXT = "Third."\n')
    project.wait_for_workers(2)
    assert project.instructions() == "Third."
    project.process.send_signal(15)
    assert project.process.wait(30) == 0
    assert not [process for process in psutil.process_iter(["environ"]) if is_of(process, project.folder)]
    assert not Thread.objects.running().exists()


def is_of(process: psutil.Process, folder: Path) -> bool:
    environment = process.info["environ"] or {}
    return str(folder) in environment.get("PYTHONPATH", "")


def test_new_files_of_own_apps_are_watched_and_installed_packages_are_not():
    folders = agents_worker._code_folders()
    assert ROOT / "tests/project" in folders
    assert not [folder for folder in folders if "site-packages" in folder.parts]
