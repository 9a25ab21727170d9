"""The hosted workflows: pinned actions, no secrets, and a release that only tags of the own repository publish."""

import re
from typing import Any

import pytest
import yaml

from tests.architecture.sources import ROOT

FOLDER = ROOT / ".github" / "workflows"
NAMES = sorted(path.name for path in FOLDER.glob("*.yml"))
FULL_TAG = re.compile(r"[\w./-]+@v\d+\.\d+\.\d+")
NO_FORK = "${{ !github.event.repository.fork }}"


def workflow(name: str) -> dict[Any, Any]:
    """Return a workflow; YAML reads its key `on` as True."""
    return dict(yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")))


def jobs(name: str) -> dict[str, Any]:
    """Return the jobs of a workflow."""
    return dict(workflow(name)["jobs"])


def may_sign_in(job: dict[str, Any]) -> bool:
    """Return whether a job may ask for a token with which registries let it in."""
    return job.get("permissions", {}).get("id-token") == "write"


@pytest.mark.parametrize("name", NAMES)
def test_actions_are_pinned_by_full_tag_and_no_secret_is_read(name: str):
    """And what is not granted to a job can only read the repository."""
    steps = [step for job in jobs(name).values() for step in job.get("steps", [])]
    assert [step["uses"] for step in steps if "uses" in step and not FULL_TAG.fullmatch(step["uses"])] == []
    assert "secrets." not in (FOLDER / name).read_text(encoding="utf-8")
    assert workflow(name)["permissions"] == {"contents": "read"}


def test_only_a_tag_releases_and_never_in_a_fork():
    """Each job has the condition: one that needs a skipped job is skipped, but no reader has to know that."""
    assert list(workflow("release.yml")[True]) == ["push"]
    assert list(workflow("release.yml")[True]["push"]) == ["tags"]
    assert {job.get("if") for job in jobs("release.yml").values()} == {NO_FORK}


def test_only_jobs_that_publish_may_sign_in_and_they_wait_for_the_tests():
    """Each in an environment of its own, where a person can be asked."""
    publishing = {name: job for name, job in jobs("release.yml").items() if may_sign_in(job)}
    assert list(publishing) == ["pypi", "npm", "github-pages"]
    assert all(job["environment"] == name and job["needs"] == ["ci", "build"] for name, job in publishing.items())
    assert not any(may_sign_in(job) for name in NAMES if name != "release.yml" for job in jobs(name).values())


def test_a_release_calls_the_workflow_of_every_change():
    """Which can be called."""
    assert jobs("release.yml")["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in workflow("ci.yml")[True]


def test_the_newest_versions_are_tested_on_a_schedule_without_locks():
    """A lock file would make them the versions of the day it was written."""
    assert "schedule" in workflow("newest.yml")[True]
    text = (FOLDER / "newest.yml").read_text(encoding="utf-8")
    assert "requirements/" not in text
    assert "@latest" in text
