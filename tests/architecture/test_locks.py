"""pip in hash-checking mode refuses a requirement such as `coverage[toml]` where the lock pins `coverage` alone."""

import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.sources import ROOT

LOCKS = sorted(path for path in (ROOT / "requirements").glob("*.txt") if "--hash=" in path.read_text())


def pinned(lock: Path) -> dict[str, set[str]]:
    """Return the extras of each package that a lock pins for this Python and platform."""
    lines = [line.removesuffix("\\") for line in lock.read_text().splitlines() if line[:1].isalnum()]
    requirements = [Requirement(line) for line in lines]
    return {
        canonicalize_name(requirement.name): requirement.extras
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    }


def requirements_of(name: str, extras: set[str]) -> Iterator[Requirement]:
    """Yield what an installed package requires here with these extras."""
    for requirement in map(Requirement, metadata.requires(name) or []):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement


def missing_extras(requirements: Iterator[Requirement], pins: dict[str, set[str]]) -> list[str]:
    return [
        str(requirement)
        for requirement in requirements
        if requirement.extras - pins.get(canonicalize_name(requirement.name), requirement.extras)
    ]


def project_requirements() -> Iterator[Requirement]:
    """Yield what `pyproject.toml` asks for, the extras of other packages only."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for lines in [project["dependencies"], *project["optional-dependencies"].values()]:
        yield from (Requirement(line) for line in lines if not line.startswith(project["name"]))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_keeps_the_extras_that_its_packages_require(lock: Path) -> None:
    pins = pinned(lock)
    installed = {canonicalize_name(distribution.name) for distribution in metadata.distributions()}
    if absent := pins.keys() - installed:
        pytest.skip(f"Needs every package of {lock.name}: install it first (missing: {', '.join(sorted(absent))}).")

    missing = {name: missing_extras(requirements_of(name, extras), pins) for name, extras in pins.items()}

    assert {name: lines for name, lines in missing.items() if lines} == {}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_keeps_the_extras_that_the_project_requires(lock: Path) -> None:
    assert missing_extras(project_requirements(), pinned(lock)) == []


def test_a_pin_without_a_required_extra_is_noticed() -> None:
    requirement = Requirement("coverage[toml]>=7")

    assert missing_extras(iter([requirement]), {"coverage": set()}) == [str(requirement)]
    assert missing_extras(iter([requirement]), {"coverage": {"toml"}}) == []
