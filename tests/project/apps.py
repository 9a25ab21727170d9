"""The app of the tests' own project."""

import os

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    """Counts statements where the benchmarks ask for it."""

    name = "tests.project"

    def ready(self) -> None:
        """Switch the counts on."""
        from tests.project import statement_counts

        if "TEST_COUNT_STATEMENTS" in os.environ:
            statement_counts.install(os.environ["TEST_COUNT_STATEMENTS"])
