"""Requests that nobody thought of, against the running demo: python -m tests.fuzz [--cases N] [schemathesis arguments]

Starts the demo's processes on an empty database (of the PostgreSQL that `TEST_DATABASE_URL` names, else SQLite), lets
schemathesis make up requests from the OpenAPI schema, and holds every answer against it: examples, corner cases, random
ones, right and wrong, sequences in which one request uses what another made, and the same again as somebody else. Ends
with the number of requests and the outcome; the exit code is 0 where all is well.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import httpx

from tests.fuzz.site import known_things, running_site
from tests.processes import ROOT

LEFT_OUT = {
    "positive_data_acceptance": (
        "A request may fit the schema and name an agent, a file or a cursor that there is not. In its place "
        "accepted_as_described of tests.fuzz.hooks: what fits is never refused as malformed."
    ),
    "negative_data_rejection": (
        "Parameters without a value, and a limit that is no number, count as not given, and of one that is given twice "
        "the last counts, as in Django and REST framework. In its place rejected_as_described of tests.fuzz.hooks, "
        "which knows these and is the same otherwise."
    ),
}
"""Checks of schemathesis that are left out, and why."""
STAFF_ONLY = {"POST /agents/threads/{thread_id}/tool-calls/{tool_call_id}/timeout/"}
ENOUGH_FOR_ALL = 1000
"""So many requests reach the success of every operation that is not for staff only."""
TRACES = ("Traceback (most recent call last)", "Internal Server Error")
"""What the site writes only where something went wrong that was nobody's request's fault."""


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description="Fuzz the running demo's API; other arguments go to schemathesis.")
    parser.add_argument("--cases", type=int, default=2000, help="at least so many requests (default: %(default)s)")
    options, arguments = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_site(folder / "site.log") as (url, tokens):
            code = fuzz(folder, url, tokens, cases=options.cases, arguments=arguments)
        complaints = [*(["schemathesis found failures"] if code else []), *complaints_of(folder, wanted=options.cases)]
        print("\n".join(summary(folder, complaints)), flush=True)
    return 1 if complaints else 0


def fuzz(folder: Path, url: str, tokens: dict[str, str], *, cases: int, arguments: Sequence[str]) -> int:
    """Let schemathesis run against the site; its exit code."""
    known, people, config = folder / "known.json", folder / "people.json", folder / "schemathesis.toml"
    known.write_text(json.dumps(known_things(url, tokens["guest"])), encoding="utf-8")
    people.write_text(json.dumps({"auth": [person(*item) for item in tokens.items()]}), encoding="utf-8")
    config.write_text(f'[auth.wfc]\npath = "{people}"\nuser = "guest"\npeers = {json.dumps(list(tokens))}\n')
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
        *("run", f"{url}/agents/schema/", "--continue-on-failure", "--seed", "1", "--request-timeout", "20"),
        *("--max-examples", str(ceil(cases / count_operations(url)))),
        *("--exclude-checks", ",".join(LEFT_OUT)),
        *arguments,
    ]
    own = {"FUZZ_KNOWN": str(known), "FUZZ_TALLY": str(folder / "tally.jsonl"), "PYTHONPATH": str(ROOT)}
    env = {**os.environ, **own, "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks"}
    return subprocess.run(command, cwd=folder, env=env, check=False).returncode


def person(name: str, token: str) -> dict[str, Any]:
    """Return somebody as the Web Fuzzing Commons describe them."""
    return {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Token {token}"}]}


def count_operations(url: str) -> int:
    """Return how many operations the schema has."""
    paths = httpx.get(f"{url}/agents/schema/", trust_env=False).json()["paths"]
    return sum(len(item) for item in paths.values())


def tally(folder: Path) -> Counter[tuple[str, int]]:
    """Return how often each operation was answered with each status."""
    lines = (folder / "tally.jsonl").read_text(encoding="utf-8").splitlines()
    return Counter((label, status) for label, status in map(json.loads, lines))


def complaints_of(folder: Path, *, wanted: int) -> Iterator[str]:
    """Yield what was not as it should be beside the checks of schemathesis."""
    answers = tally(folder)
    if answers.total() < wanted:
        yield f"only {answers.total()} requests of {wanted} were made"
    for label in sorted({label for label, _ in answers}) if wanted >= ENOUGH_FOR_ALL else ():
        if not (label in STAFF_ONLY or any(name == label and status < 300 for name, status in answers)):
            yield f"{label} was never answered with success, so little was tried"
    log = (folder / "site.log").read_text(encoding="utf-8", errors="replace")
    if traces := [line for line in log.splitlines() if any(trace in line for trace in TRACES)]:
        yield f"the site wrote {len(traces)} tracebacks; the last of its log:\n{log[-4000:]}"


def summary(folder: Path, complaints: Sequence[str]) -> Iterator[str]:
    """Yield the lines that a person reads at the end."""
    answers = tally(folder)
    yield "\nAnswers by operation:"
    for label in sorted({label for label, _ in answers}):
        counts = sorted((status, count) for (name, status), count in answers.items() if name == label)
        yield f"  {label}: {', '.join(f'{status} ({count})' for status, count in counts)}"
    yield "Checks left out:"
    yield from (f"  {name}: {why}" for name, why in LEFT_OUT.items())
    statuses = Counter(status // 100 for label, status in answers.elements())
    kinds = ", ".join(f"{count} of {kind}xx" for kind, count in sorted(statuses.items()))
    yield f"{answers.total()} requests, {kinds}: {'; '.join(complaints) or 'no complaint'}."


if __name__ == "__main__":
    sys.exit(main())
