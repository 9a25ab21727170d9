"""In a project that sets everything otherwise, all the guarantees of this folder and of the admin's hold."""

import os
import subprocess
import sys

import pytest

from tests.processes import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["tests/api", "tests/admin"])
def test_the_same_tests_pass_in_a_foreign_project(child_env, folder):
    """UUID users without usernames, ATOMIC_REQUESTS, LoginRequiredMiddleware, GZip, and REST settings of its own.

    `TEST_FOREIGN_ONE_IN=10` takes a tenth of them.
    """
    command = [
        sys.executable,
        "-m",
        "pytest",
        folder,
        "--ds=tests.api.foreign.settings",
        "-q",
        "-n",
        "0",
        "--one-in",
        os.environ.get("TEST_FOREIGN_ONE_IN", "1"),
        "-p",
        "no:cacheprovider",
    ]
    result = subprocess.run(command, cwd=ROOT, env=child_env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5000:]
