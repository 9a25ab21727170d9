"""The pauses between two recoveries of dead workers' rows."""

import os
from types import SimpleNamespace

import pytest

from durable_agents.engine import process


class EnoughError(Exception):
    """Ends a loop that has no end."""


def test_recoveries_have_no_fixed_rhythm(monkeypatch):
    """Else clusters of two releases could keep in step, and one of them would take each notification of the other."""
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 20:
            raise EnoughError

    monkeypatch.setattr(process, "time", SimpleNamespace(sleep=sleep))
    for name in ("_lock_file", "_log_problems"):
        monkeypatch.setattr(process, name, lambda *_: None)
    with pytest.raises(EnoughError):
        process._reap_for_ever(os.getppid())
    assert len(set(pauses)) > 10
    assert all(1.5 <= seconds <= 2.5 for seconds in pauses)
