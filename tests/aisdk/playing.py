"""Runs the cases in Node."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.aisdk.stage import Stage

ROOT = Path(__file__).resolve().parents[2]
MAJORS = ("7", "6")


def missing() -> str:
    """Return what the cases need and this machine lacks, with the command that gets it; empty where all is there."""
    if shutil.which(node()) is None:
        return "Node is not installed: apt install nodejs npm"
    if not (ROOT / "node_modules" / "ai6-react").is_dir():
        return "the npm packages are not installed: npm ci"
    return ""


def node() -> str:
    """Return the Node that the cases run on: the one that the variable `NODE` names, else the machine's."""
    return os.environ.get("NODE") or "node"


def play(stage: Stage, major: str, *names: str) -> int:
    """Run the cases, those with one of `names` in their own, with this major of the AI SDK; return how many failed.

    Prints a line for each case, what went wrong under it, and at the end how many passed and failed.
    """
    env = os.environ | {"SITE_URL": stage.demo.url.rstrip("/"), "CONTROL_URL": stage.control_url}
    # Node 20 has websockets only with this option; later versions have them anyway.
    command = [node(), "--experimental-websocket", "tests/aisdk/cases/run.mjs", major, *names]
    return subprocess.run(command, cwd=ROOT, env=env, check=False, timeout=600).returncode
