"""Tables of figures for a terminal, and the JSON report."""

import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.loads import Figures
from tests.benchmarks.servers import ROOT

BASELINE = "litellm loop"


def table(title: str, columns: Mapping[str, Figures]) -> str:
    """Return a table with a line for each figure and a column for each contender; ratios to the bare litellm loop
    stand in brackets.
    """
    names = list(dict.fromkeys(name for figures in columns.values() for name in figures))
    first = max(len(name) for name in names)
    width = max(20, *(len(column) + 1 for column in columns))
    lines = [title, " " * first + "".join(f"{column:>{width}}" for column in columns)]
    base = columns.get(BASELINE, {})
    for name in names:
        cells = [cell(figures.get(name), base.get(name), own=figures is base) for figures in columns.values()]
        if any(cells):
            lines.append(f"{name:<{first}}" + "".join(f"{text or '-':>{width}}" for text in cells))
    return "\n".join(lines)


def cell(value: float | None, base: float | None, *, own: bool) -> str:
    """Return a figure with its ratio to the baseline's."""
    if value is None:
        return ""
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text if own or not base else f"{text} ({value / base:.2f})"


def circumstances() -> dict[str, Any]:
    """Return what a figure depends on: commit, machine, versions."""
    return {
        "commit": command("git", "rev-parse", "--short", "HEAD"),
        "changed": command("git", "status", "--porcelain", "--untracked-files=no") != "",
        "python": platform.python_version(),
        "processor": processor(),
        "processors": command("nproc"),
        "system": platform.platform(),
    }


def processor() -> str:
    """Return the name of the processor, an empty string where Linux does not say."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def command(*words: str) -> str:
    """Return what a program prints, an empty string where it fails."""
    try:
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def store(path: str, report: Mapping[str, Any]) -> None:
    """Write the report."""
    Path(path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
