"""Plugin of pytest: a user and a stranger, each with a client of the REST API."""

from typing import Any

import pytest

from tests.api.calls import Api, person


@pytest.fixture
def me(db: None) -> Any:
    """Return the user whom most tests are about."""
    return person("me")


@pytest.fixture
def api(me: Any) -> Api:
    """Return the API as that user sees it."""
    return Api(me)


@pytest.fixture
def stranger(db: None) -> Api:
    """Return the API as somebody else sees it."""
    return Api(person("stranger"))
