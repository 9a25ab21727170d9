"""The AI SDK's own client finds in the endpoint what it finds in a server of its makers."""

import pytest

from tests.aisdk.playing import MAJORS, play
from tests.aisdk.stage import Stage

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("major", MAJORS)
def test_every_case_of_a_client_passes(stage: Stage, major: str):
    """The cases are in `cases/`; each says with a line how it ended."""
    assert play(stage, major) == 0
