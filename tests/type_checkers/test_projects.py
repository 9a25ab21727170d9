"""mypy and Pyright, both strict, accept a project with every kind of tool, and find its mistakes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT

PROJECT = Path(__file__).with_name("project")
PYRIGHT = ROOT / "node_modules" / "pyright" / "index.js"
OURS = "durable_agents.mypy_plugin"
CONFIG = """
[mypy]
strict = true
plugins = {}

[mypy.plugins.django-stubs]
django_settings_module = project_settings
"""
BY_MYPY = r"# wrong( \(mypy\))?$"
BY_PYRIGHT = r"# wrong$"
SETTINGS = """
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = [
    *("django.contrib.auth", "django.contrib.contenttypes", "channels", "rest_framework", "django_q"),
    "durable_agents",
]
SECRET_KEY = "only-for-this-test-0123456789-0123456789-0123456789"
USE_TZ = True
"""
pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path):
    """A folder outside this checkout with the files of the project, as a user has them."""
    for file in PROJECT.glob("*.py"):
        shutil.copy(file, tmp_path)
    (tmp_path / "project_settings.py").write_text(SETTINGS, encoding="utf-8")
    return tmp_path


def checked_by_mypy(project, plugins, *files):
    """Return the errors: the file, the line number and the text of each."""
    (project / "mypy.ini").write_text(CONFIG.format(plugins), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--no-pretty", "--cache-dir", str(project / "cache"), *files]
    ended = subprocess.run(
        command,
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ended.returncode in {0, 1}, ended.stdout + ended.stderr
    found = re.findall(r"^(.+?):(\d+): error: (.*)$", ended.stdout, re.MULTILINE)
    return [(file, int(line), text) for file, line, text in found]


def checked_by_pyright(project):
    """Return the errors: the file, the line number and the text of each."""
    (project / "pyrightconfig.json").write_text(json.dumps({"strict": ["."], "pythonVersion": "3.11"}))
    command = [str(shutil.which("node")), str(PYRIGHT), "--outputjson", "--pythonpath", sys.executable]
    ended = subprocess.run(
        [*command, "--project", str(project)], cwd=project, capture_output=True, text=True, check=False, timeout=600
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)["generalDiagnostics"]
    return [(Path(it["file"]).name, it["range"]["start"]["line"] + 1, it["message"]) for it in found]


def lines_marked(pattern):
    """Return the numbers of the lines of `rejected.py` that are marked as wrong for a type checker."""
    lines = (PROJECT / "rejected.py").read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if re.search(pattern, line)}


def see_what_is_found(errors, marked):
    """See that there is an error in each marked line, and in no other."""
    assert [error for error in errors if error[0] != "rejected.py"] == []
    lines = {line for _, line, _ in errors}
    assert [error for error in errors if error[1] not in marked] == []
    assert marked - lines == set()


def test_mypy_accepts_every_tool_and_finds_each_mistake(project):
    see_what_is_found(checked_by_mypy(project, OURS, "accepted.py", "rejected.py"), lines_marked(BY_MYPY))


def test_mypy_with_django_stubs_also_knows_the_fields_of_models(project):
    errors = checked_by_mypy(project, f"{OURS}, mypy_django_plugin.main", *(file.name for file in PROJECT.glob("*.py")))
    see_what_is_found(errors, lines_marked(BY_MYPY))


def test_mypy_without_the_plugin_reports_only_the_empty_body_of_client_tools(project):
    errors = checked_by_mypy(project, "", "accepted.py")
    assert {text for _, _, text in errors} == {"Missing return statement  [empty-body]"}


@pytest.mark.skipif(not PYRIGHT.is_file(), reason="npm ci has not been run")
def test_pyright_accepts_every_tool_and_finds_each_mistake(project):
    (project / "reads_models.py").unlink()
    see_what_is_found(checked_by_pyright(project), lines_marked(BY_PYRIGHT))
