"""Fixtures for projects that test with pytest. pytest finds this module through the ``pytest11`` entry point.

The rest of this package is imported only when a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from durable_agents.testing import Ran, ScriptedModel


@pytest.fixture
def scripted_model() -> Iterator[ScriptedModel]:
    """Replace every agent's model by a scripted model. Add answers with ``scripted_model.script("Hello.")``."""
    from durable_agents.testing import ScriptedModel  # noqa: PLC0415 - needs the app registry

    with ScriptedModel() as model:
        yield model


@pytest.fixture
def run_until_idle() -> Callable[..., Ran]:
    """Return ``durable_agents.testing.run_until_idle``. The test also needs a database fixture, such as ``db``."""
    from durable_agents import testing  # noqa: PLC0415 - needs the app registry

    return testing.run_until_idle
