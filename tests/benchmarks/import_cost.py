"""Measure what `import durable_agents` costs beyond Django's own import: `python -m tests.benchmarks.import_cost`.

The promise is less than 300 ms, so that naming the package in a settings file or a shell is free.
"""

import subprocess
import sys
from statistics import median

ROUNDS = 7
LIMIT_MS = 300
PROGRAM = "import time; {before}; start = time.perf_counter(); {measured}; print(time.perf_counter() - start)"


def milliseconds(before: str, measured: str) -> float:
    """Return the median time of the statement `measured` in fresh processes that ran `before` first."""
    command = [sys.executable, "-c", PROGRAM.format(before=before, measured=measured)]
    runs = (subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(ROUNDS))
    return median(float(run.stdout) * 1000 for run in runs)


def main() -> None:
    """Print the figures; exit with 1 if the promise is broken."""
    django = milliseconds("pass", "import django, django.apps, django.db.models")
    package = milliseconds("import django, django.apps, django.db.models", "import durable_agents")
    declaring = milliseconds(
        "import django, django.apps, django.db.models", "from durable_agents import Agent, ToolError, tool"
    )
    print(f"Django itself                              {django:7.1f} ms")
    print(f"import durable_agents, beyond that         {package:7.1f} ms (promised: under {LIMIT_MS})")
    print(f"from durable_agents import Agent, tool ... {declaring:7.1f} ms")
    sys.exit(package >= LIMIT_MS)


if __name__ == "__main__":
    main()
