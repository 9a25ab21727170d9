"""Files within a message over the websocket: stored before the command's transaction, once per key."""

import pytest
from channels.db import database_sync_to_async

from durable_agents import create_thread
from durable_agents.models import Attachment
from tests.api.calls import Api
from tests.attachments.samples import PNG, embedded, named, places, stored

act = database_sync_to_async


@pytest.fixture
def root(tmp_path, settings):
    """Return the directory in which files are stored."""
    settings.MEDIA_ROOT = tmp_path / "media"
    return tmp_path / "media"


@pytest.fixture
def thread(agent, user):
    """Return a thread of the user's."""
    return create_thread(agent, owner=user)


@pytest.mark.usefixtures("polled")
async def test_a_file_is_sent_once_per_key(connect, thread, root):
    """The answer names it."""
    socket = await connect()
    frame = {"type": "send", "thread": str(thread.pk), "key": "k1", "parts": [embedded()]}
    first, again = await socket.ask(**frame), await socket.ask(**frame)
    assert first == again
    row = await act(Attachment.objects.get)()
    assert first["message"]["parts"][0]["url"] == f"/agents/attachments/{row.pk}/"
    assert stored(root) == await act(places)()


@pytest.mark.usefixtures("polled")
async def test_uploads_of_the_user_are_sent_and_others_are_not(connect, thread, user, stranger, root):
    """By their URLs."""
    socket = await connect()
    mine, foreign = await act(lambda: [one.upload(PNG).json() for one in (Api(user), stranger)])()
    frame = {"type": "send", "thread": str(thread.pk)}
    assert (await socket.ask(**frame, parts=[named(foreign)]))["code"] == "invalid_parts"
    assert (await socket.ask(**frame, parts=[named(mine)]))["message"]["parts"][0]["url"] == mine["url"]
    edit = {"type": "edit", "thread": str(thread.pk), "message": "x", "parts": [embedded()]}
    assert (await socket.ask(**edit))["code"] in {"message_not_found", "thread_busy"}
    assert len(stored(root)) == 2


@pytest.mark.usefixtures("polled")
@pytest.mark.parametrize("parts", ["text", 7, {"type": "file"}, [None], [[]]])
async def test_parts_that_are_none_are_refused(connect, thread, parts):
    """And the socket stays."""
    socket = await connect()
    answer = await socket.ask(type="send", thread=str(thread.pk), parts=parts)
    assert answer["code"] == "invalid_parts"
