"""A Django app of the tests, whose agents differ from release to release."""
