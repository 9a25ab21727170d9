"""Who imports what: litellm belongs to the workers, and `import durable_agents` is cheap everywhere."""

import subprocess
import sys

from tests.architecture.sources import ROOT

HEAVY = ("litellm", "openai", "channels", "rest_framework", "pydantic", "django_q", "twisted", "aiohttp")

MANAGE = "from django.core.management import execute_from_command_line as run; run(['manage.py', {arguments}])"
SITUATIONS = {
    "setup with admin": "import django; django.setup(); import django.contrib.admin",
    "urls": "import django; django.setup(); from django.urls import resolve; resolve('/agents/threads/')",
    "web process": "import demo_project.asgi",
    "check": MANAGE.format(arguments="'check'"),
    "migrate": MANAGE.format(arguments="'migrate', '--verbosity=0'"),
    "makemigrations": MANAGE.format(arguments="'makemigrations', '--check', '--dry-run'"),
    "demo command": "import django; django.setup(); import demo_project.management.commands.demo",
}


def modules_after(code: str, env: dict[str, str]) -> set[str]:
    """Return the names of the modules that a fresh process has loaded after `code`."""
    program = f"import sys\n{code}\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


def test_only_the_workers_import_litellm(child_env, tmp_path):
    """It costs seconds and 170 MB, and nothing but a model step needs it. One process does it all."""
    env = child_env | {"TEST_DATABASE_URL": f"sqlite:///{tmp_path / 'import.sqlite3'}"}
    steps = [f"{code}\nassert 'litellm' not in sys.modules, {name!r}" for name, code in SITUATIONS.items()]
    assert "litellm" not in modules_after("\n".join(steps), env)


def test_importing_the_package_loads_nothing_heavy(child_env):
    """Its public names are loaded when they are first used."""
    loaded = modules_after("import durable_agents", child_env)
    assert loaded.isdisjoint(HEAVY)


def test_declaring_agents_loads_no_model_library(child_env):
    """A project's `agents.py` is imported by every process."""
    code = "from durable_agents import Agent, ToolError, tool"
    assert modules_after(code, child_env).isdisjoint({"litellm", "openai", "channels", "django_q"})
