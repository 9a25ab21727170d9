"""The twelve tests of `test_agents.py` as a project runs them: in memory, fast, without network, broker or litellm."""

import re
import subprocess
import sys

import pytest

from tests.architecture.sources import ROOT

GUARDED = """
import socket, sys
from django.core.management import execute_from_command_line

def refuse(self, address):
    raise AssertionError(f"a connection to {address} was tried")

socket.socket.connect = refuse
try:
    execute_from_command_line(["manage.py", "test", "tests.testing.test_agents"])
finally:
    print("loaded:", *sys.modules)
"""


def run(code: str, env: dict[str, str], *arguments: str) -> str:
    """Return what a fresh process prints; it must end well."""
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


def test_twelve_tests_run_in_memory_and_ask_nobody(child_env):
    """No socket is opened, though broker and channel layer are Redis; litellm is not imported."""
    printed = run(GUARDED, child_env | {"DJANGO_SETTINGS_MODULE": "tests.testing.memory"})
    found = re.search(r"Ran 12 tests in ([\d.]+)s", printed)
    assert found, printed
    loaded = printed.rpartition("loaded:")[2].split()
    assert "durable_agents.testing" in loaded
    assert {"litellm", "openai"}.isdisjoint(loaded)


PROJECT_TEST = """
import pytest
from durable_agents import create_thread
from durable_agents.testing import calls
from tests.testing.shop import opened

@pytest.mark.django_db
def test_with_the_fixtures(scripted_model, run_until_idle):
    scripted_model.script(calls("add", a=1, b=2), "Three.")
    with opened():
        thread = create_thread("shop", prompt="1 + 2?")
        assert run_until_idle().tool_calls == 1
    scripted_model.assert_done()
"""


def test_pytest_finds_the_fixtures_by_themselves(child_env, tmp_path):
    """The plugin is loaded by its entry point."""
    (tmp_path / "test_project.py").write_text(PROJECT_TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ["-q", "-p", "no:cacheprovider", "-c", str(tmp_path / "pytest.ini"), str(tmp_path)]
    env = child_env | {"DJANGO_SETTINGS_MODULE": "tests.testing.memory"}
    printed = run("import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))", env, *options)
    assert "1 passed" in printed


def test_the_plugin_loads_nothing_heavy(child_env):
    """It is imported by every pytest of a virtual environment, whatever that tests."""
    heavy = ("django", "django_q", "channels", "pydantic", "litellm")
    code = "import sys, durable_agents.pytest_plugin; print(*sys.modules)"
    loaded = run(code, child_env).split()
    assert set(heavy).isdisjoint(loaded)
    assert "durable_agents.pytest_plugin" in loaded


@pytest.mark.parametrize("name", ["durable_agents.testing", "durable_agents.engine"])
def test_importing_the_kit_imports_no_litellm(child_env, name):
    """Only a script over HTTP does, when its first answer is told."""
    code = f"import sys, django; django.setup(); import {name}; print(*sys.modules)"
    assert "litellm" not in run(code, child_env).split()
