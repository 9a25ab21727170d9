"""A module imports only from the layers below its own (the contract is in pyproject.toml)."""

import subprocess
import sys

from tests.architecture.sources import ROOT

LINT = "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])"


def test_the_layers_hold():
    """What `lint-imports` says, in a process of its own since it imports the package by its own means."""
    result = subprocess.run([sys.executable, "-c", LINT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
