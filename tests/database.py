"""Plugin: what each test pays for the database. Content types and permissions are computed once, not after every flush,
and SQLite does not wait for the disk.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Create the test database. From then on, let a flush bring back the content types and permissions as stored."""
    from django.contrib.auth.management import create_permissions
    from django.contrib.auth.models import Permission
    from django.contrib.contenttypes.management import create_contenttypes
    from django.contrib.contenttypes.models import ContentType
    from django.db import DatabaseError
    from django.db.models.signals import post_migrate

    stored: list[tuple[Any, list[Any]]] = []
    # pytest-django creates no database where no collected test is marked to use it.
    with django_db_blocker.unblock(), suppress(DatabaseError):
        stored = [(model, list(model.objects.all())) for model in (ContentType, Permission)]

    def restore(using: str, **_: Any) -> None:
        for model, rows in stored:
            if not model.objects.using(using).exists():
                model.objects.using(using).bulk_create(rows)

    post_migrate.disconnect(create_contenttypes)
    post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
    post_migrate.connect(restore, dispatch_uid="tests.database")
    yield
    post_migrate.disconnect(dispatch_uid="tests.database")
    post_migrate.connect(create_contenttypes)
    post_migrate.connect(create_permissions, dispatch_uid="django.contrib.auth.management.create_permissions")
