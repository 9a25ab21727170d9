"""The crash tests with all their rounds: python -m tests.proof [pytest arguments]

CI runs a tenth of the rounds. The lines that begin with a test's name in brackets are kept in docs/proof/.
"""

import os
import subprocess
import sys


def main() -> int:
    command = [sys.executable, "-m", "pytest", "tests/crash", "-q", "-m", "slow or not slow", *sys.argv[1:]]
    return subprocess.run(command, env={**os.environ, "PROOF": "full"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
