"""However many come at once, nobody has more files that no message carries than allowed."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from django.db import connections

from durable_agents.models import Attachment
from tests.api.calls import Api
from tests.attachments.samples import PNG, stored

pytestmark = pytest.mark.django_db(transaction=True)
CLIENTS, MOST = 12, 100


@pytest.fixture
def at_once():
    """Return a function that calls functions in threads, released together, and gives their results."""
    with ThreadPoolExecutor(CLIENTS) as threads:
        barrier = threading.Barrier(CLIENTS)

        def released(function):
            barrier.wait()
            try:
                return function()
            finally:
                connections.close_all()

        yield lambda functions: [job.result(60) for job in [threads.submit(released, one) for one in functions]]


def fill(owner, count):
    """Give somebody so many files that no message carries."""
    Attachment.objects.bulk_create(
        [
            Attachment(owner=owner, file=f"durable_agents/attachments/{n}", media_type="image/png", size=1)
            for n in range(count)
        ]
    )


@pytest.mark.parametrize("room", [1, 3])
def test_uploads_at_once_never_exceed_the_limit(agent, me, at_once, root, room):
    """As many are taken as there is room for; of the others no file is left."""
    for _ in range(5):
        fill(me, MOST - room)
        answers = at_once([partial(api.upload, PNG) for api in [Api(me) for _ in range(CLIENTS)]])
        assert sorted(answer.status_code for answer in answers) == [201] * room + [429] * (CLIENTS - room)
        assert Attachment.objects.filter(owner=me).count() == MOST
        assert len(stored(root)) == room
        Attachment.objects.all().delete()
    assert stored(root) == set()


def test_uploads_of_others_are_not_counted(agent, me, stranger, at_once):
    """Each has their own limit."""
    fill(me, MOST)
    answers = at_once([partial(one.upload, PNG) for one in [stranger, Api(me)] * (CLIENTS // 2)])
    assert [answer.status_code for answer in answers] == [201, 429] * (CLIENTS // 2)
