"""Plugin: collect garbage between tests only, on Python 3.11.

Python 3.11 collects in the middle of an allocation, and so in the middle of ``ContextVar.set``. If it collects there a
suspended coroutine whose ``finally`` sets a context variable, as that of every ``sync_to_async`` call does, ``set``
goes on with freed memory: then every context variable reads as None, or the interpreter crashes. Tests leave many such
coroutines behind: a worker that dies does not wait for what it was doing. Python 3.12 collects between instructions.
"""

import gc
import sys
from collections.abc import Iterator

import pytest

COLLECTS_ANYWHERE = sys.version_info < (3, 12)
FULL_EVERY = 100
"""Tests between two collections of all generations; a collection of the young ones takes a few milliseconds."""

_ended = 0
_frozen: set[str] = set()


def pytest_sessionstart() -> None:
    """Switch automatic collection off."""
    if COLLECTS_ANYWHERE:
        gc.disable()


def pytest_collection_finish() -> None:
    """Leave the tests themselves out of all collections."""
    if COLLECTS_ANYWHERE:
        _freeze("tests")


def _freeze(what: str) -> None:
    gc.collect()
    gc.freeze()
    _frozen.add(what)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Collect after each test, so that what a finalizer warns of is that test's."""
    yield
    if COLLECTS_ANYWHERE:
        global _ended  # noqa: PLW0603 - counts over the whole run
        _ended += 1
        gc.collect(2 if _ended % FULL_EVERY == 0 else 1)
        if "litellm" in sys.modules and "litellm" not in _frozen:
            _freeze("litellm")  # its 400,000 objects would take half a second each time
