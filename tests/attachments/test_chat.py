"""Chat clients post files as data URLs with the whole history, again and again; each is stored once."""

import json

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient

from durable_agents.models import Attachment, Message, Thread
from tests.api.calls import Api
from tests.attachments.samples import PDF, PNG, embedded, named, places, stored

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("agent")]


@pytest.fixture
def post(me):
    """Return a function that posts to the chat endpoint as useChat does, and gives status and what the message says."""
    client = AsyncClient()
    async_to_sync(client.aforce_login)(me)

    async def posted(message_id, *parts, **body):
        message = {"id": message_id, "role": "user", "parts": list(parts)}
        sent = {"id": "c1", "messages": [message], "trigger": "submit-message", **body}
        response = await client.post("/agents/chat/tested", json.dumps(sent), content_type="application/json")
        response.close()
        return response.status_code

    return async_to_sync(posted)


def said():
    """Return the parts of the last user's message that is shown."""
    return Message.objects.shown().filter(role="user").last().parts


def test_a_data_url_in_a_chat_becomes_an_attachment(post, me, root):
    """In the transaction that makes the thread."""
    assert post("m1", embedded()) == 200
    row = Attachment.objects.get()
    assert (row.thread, row.owner) == (Thread.objects.get(), me)
    assert said() == [
        {"type": "file", "mediaType": "image/png", "url": f"/agents/attachments/{row.pk}/"} | {"filename": "dot.png"}
    ]
    assert stored(root) == places()


def test_the_same_message_posted_again_is_the_same_file(post, root):
    """As a client does that lost the connection, or tries again what failed."""
    post("m1", embedded())
    assert post("m1", embedded()) == 200
    assert post("m1", embedded(), messageId="m1") == 200
    assert post("m1", said()[0], messageId="m1") == 200
    assert (Attachment.objects.count(), len(stored(root))) == (1, 1)
    assert Message.objects.filter(role="user").count() == 1


def test_another_file_of_the_same_name_is_another_message(post, worker):
    """Screenshots are all called alike."""
    post("m1", embedded(PNG, filename="image.png"))
    worker.answer()
    assert post("m1", embedded(PNG + b"\x00", filename="image.png"), messageId="m1") == 200
    assert Attachment.objects.count() == 2
    assert Message.objects.filter(role="user").count() == 2


def test_an_upload_is_sent_by_its_url_and_a_foreign_one_is_not(post, me, stranger):
    """In a chat as everywhere."""
    made = Api(me).upload(PDF, "a.pdf").json()
    assert post("m1", named(stranger.upload(PNG).json())) == 400
    assert post("m1", named(made, url=f"http://localhost{made['url']}")) == 200
    assert said()[0]["url"] == made["url"]


def test_a_file_that_would_have_to_be_fetched_is_refused(post):
    """Before the stream begins."""
    assert post("m1", {"type": "file", "mediaType": "image/png", "url": "https://example.org/x.png"}) == 400
    assert (Thread.objects.count(), Message.objects.count()) == (0, 0)
