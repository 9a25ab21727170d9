"""Over two running servers, nobody has more files that no message carries than allowed, however many come at once."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from durable_agents.lifecycle.attachments import MAX_UNSENT
from durable_agents.models import Attachment
from tests.api.calls import person
from tests.attachments.samples import PNG, stored
from tests.people.visitors import Person, at_once

CLIENTS, ROUNDS = 12, 5

UPLOADERS: list[Callable[[str], Person]] = [
    lambda url: Person(url, visitor="v1"),
    lambda url: Person(url, user=person("ann")),
]


def fill(count: int) -> None:
    """Give the sender of the only file so many more that no message carries."""
    sent = Attachment.objects.get()
    facts = {"owner": sent.owner, "scope": sent.scope, "media_type": "image/png", "size": 1}
    Attachment.objects.bulk_create([Attachment(file=f"none/{number}", **facts) for number in range(count)])


def upload(one: Person) -> tuple[int, str]:
    """Upload a file; return the status and the code of a refusal."""
    facts = {"files": {"file": ("dot.png", PNG, "image/png")}, "headers": one.headers, "timeout": 60}
    answer = httpx.post(f"{one.url}/agents/attachments/", trust_env=False, **facts)
    return answer.status_code, answer.json().get("code", "")


@pytest.mark.slow
@pytest.mark.parametrize("room", [1, 3])
@pytest.mark.parametrize("uploader", UPLOADERS, ids=["visitor", "user"])
def test_uploads_at_once_over_two_servers_fill_the_limit_exactly(servers, uploader: Callable[[str], Person], room: int):
    """Of those that are refused no file is left."""
    _, [here, there] = servers(2)
    one = uploader(here.url)
    callers = [one, one.at(there.url)] * (CLIENTS // 2)
    root = Path(os.environ["MEDIA_ROOT"])
    for _ in range(ROUNDS):
        before = stored(root)
        assert upload(one)[0] == 201
        fill(MAX_UNSENT - room - 1)
        answers = at_once(*(partial(upload, caller) for caller in callers))
        assert sorted(status for status, _ in answers) == [201] * room + [429] * (CLIENTS - room)
        assert {code for status, code in answers if status == 429} == {"throttled"}
        assert Attachment.objects.unsent().count() == MAX_UNSENT
        assert len(stored(root) - before) == room + 1
        Attachment.objects.all().delete()
