"""Ordinary django-q2 tasks of the tests' project."""

import time


def nap() -> float:
    """Take 10 ms; returns when it began."""
    began = time.time()
    time.sleep(0.01)
    return began
