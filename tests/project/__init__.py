"""A Django app of the tests: its agents.py is found by every process on the test settings."""
