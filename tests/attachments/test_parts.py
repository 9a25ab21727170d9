"""What a file part of a message may be: an attachment of the sender's or the file itself, nothing to be fetched."""

from uuid import uuid4

import pytest
from django.db import OperationalError, transaction

from durable_agents import (
    InvalidPartsError,
    TooLargeError,
    add_message,
    create_thread,
    edit_message,
    export_thread,
    list_messages,
    send_message,
    stop_thread,
)
from durable_agents.lifecycle import statements
from durable_agents.models import Attachment, Message, Thread
from durable_agents.parts import MAX_FILES, MAX_PARTS
from tests.api.calls import Api, person, problem
from tests.attachments.samples import HTML, PDF, PNG, data_url, embedded, named, places, stored

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("agent")]

LOOK = {"type": "text", "text": "Look."}


@pytest.fixture
def thread(agent, me):
    """Return an empty thread."""
    return create_thread(agent, owner=me)


def say(api, thread, *parts, **body):
    """Send a message of these parts over REST."""
    return api.post(f"threads/{thread.pk}/messages/", {"parts": list(parts), **body})


ORIGINS = ["", "http://testserver", "https://elsewhere.example:8443", "/site"]


@pytest.mark.parametrize("origin", ORIGINS)
def test_an_upload_is_sent_by_its_url(api, me, thread, origin):
    """With or without an origin, which is not asked; what the message says of it is what is known of it."""
    made = api.upload(PNG, "dot.png", "image/png").json()
    part = {"type": "file", "mediaType": "text/html", "filename": "x" * 300, "url": origin + made["url"].rstrip("/")}
    told = say(api, thread, LOOK, part)
    assert told.status_code == 202
    shown = {"type": "file", "mediaType": "image/png", "url": made["url"], "filename": "dot.png"}
    assert told.json()["parts"] == [LOOK, shown]
    row = Attachment.objects.get()
    assert (row.thread, row.owner, str(row.pk)) == (thread, me, made["id"])
    assert list_messages(thread)[0].parts == [LOOK, shown]


def test_a_file_within_a_message_becomes_an_attachment(api, me, thread, root):
    """The message is small again, whoever reads it."""
    told = say(api, thread, LOOK, embedded(), embedded(PDF, "application/pdf", "../a.pdf")).json()
    rows = {row.media_type: row for row in Attachment.objects.all()}
    assert [(row.thread, row.owner) for row in rows.values()] == [(thread, me)] * 2
    assert told["parts"][1:] == [
        {"type": "file", "mediaType": kind, "url": f"/agents/attachments/{rows[kind].pk}/", "filename": name}
        for kind, name in (("image/png", "dot.png"), ("application/pdf", "a.pdf"))
    ]
    assert {(root / place).read_bytes() for place in places()} == {PNG, PDF}
    assert stored(root) == places()


def test_so_it_is_wherever_messages_come_from(agent, me, thread, api, root, worker):
    """Python's functions, the REST API, and the history that a thread begins with."""
    send_message(thread, parts=[embedded()])
    stop_thread(thread)
    add_message(thread, "user", [embedded()])
    question = Message.objects.filter(thread=thread, role="user").first()
    edit_message(thread, question.shown_id, [LOOK, embedded()])
    create_thread(agent, owner=me, parts=[embedded()])
    create_thread(agent, messages=[{"role": "user", "parts": [embedded()]}, {"role": "user", "content": [embedded()]}])
    create_thread(agent, messages=iter([{"role": "user", "content": "Hi"}, {"role": "user", "parts": [embedded()]}]))
    made = api.post("threads/", {"agent": "tested", "parts": [embedded()]})
    answered = api.send("PUT", f"threads/{made.json()['id']}/messages/x/", {"parts": [embedded()]})
    assert problem(answered)[0] in {404, 409}
    assert Attachment.objects.count() == 8
    assert stored(root) == places()
    assert not any("base64" in str(parts) for parts in Message.objects.values_list("parts", flat=True))
    assert set(Attachment.objects.values_list("thread", flat=True)) <= set(Thread.objects.values_list("pk", flat=True))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/dot.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:5432/",
        "//example.org/dot.png",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "ftp://example.org/x",
        "blob:https://example.org/1",
        "/etc/passwd",
        "attachments/x/",
        "/agents/attachments/../../etc/passwd",
        "javascript:/attachments/00000000-0000-0000-0000-000000000001/",
        "data:image/png,raw",
        "",
        None,
        7,
    ],
)
def test_nothing_is_fetched(api, thread, url):
    """What a file part may be is said."""
    told = say(api, thread, {"type": "file", "mediaType": "image/png", "url": url})
    assert problem(told) == (400, "invalid_parts")
    assert "data:" in told.json()["detail"] or "base64" in told.json()["detail"]
    with pytest.raises(InvalidPartsError):
        send_message(thread, parts=[{"type": "file", "mediaType": "image/png", "url": url}])


def test_a_foreign_upload_answers_as_one_that_does_not_exist(api, stranger, thread):
    """Neither over REST nor from Python can it be had."""
    made = stranger.upload(PNG).json()
    foreign = say(api, thread, named(made))
    unknown = say(api, thread, named(made, url=f"/agents/attachments/{uuid4()}/"))
    assert problem(foreign) == problem(unknown) == (400, "invalid_parts")
    assert foreign.json()["detail"][40:].partition(" that ")[2] == unknown.json()["detail"][40:].partition(" that ")[2]
    with pytest.raises(InvalidPartsError, match="no attachment"):
        send_message(thread, parts=[named(made)])
    row = Attachment.objects.get()
    assert (row.thread, Message.objects.count()) == (None, 0)


def test_what_a_message_of_another_thread_carries_has_to_be_uploaded_again(api, agent, me, thread):
    """It goes with that thread."""
    made = api.upload(PNG).json()
    assert say(api, thread, named(made)).status_code == 202
    other = create_thread(agent, owner=me)
    told = say(api, other, named(made))
    assert problem(told) == (400, "invalid_parts")
    assert "once more" in told.json()["detail"]


class TeamPolicy:
    """Everybody sends to everybody's threads, as themselves."""

    def filter(self, queryset, request):
        """All."""
        return queryset if request.user.is_authenticated else queryset.none()

    def allows(self, request, action, *, agent=None, thread=None, tool_call=None):
        """Everything."""
        return request.user.is_authenticated

    def owner_and_scope(self, request):
        """Their own."""
        return request.user, "team"

    def context(self, request):
        """Nothing."""
        return {}


def test_whose_uploads_a_message_may_carry_is_its_senders_affair(api, me, agent, settings):
    """Not the thread owner's; what is sent belongs to the thread, and stays when the sender leaves."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.TeamPolicy"}
    mate = person("mate")
    thread = create_thread(agent, owner=me, scope="team")
    mine, theirs = (one.upload(PNG).json() for one in (api, Api(mate)))
    assert problem(say(Api(mate), thread, named(mine))) == (400, "invalid_parts")
    assert say(Api(mate), thread, named(theirs)).status_code == 202
    with pytest.raises(InvalidPartsError):
        send_message(thread, parts=[named(Api(mate).upload(PNG).json())])
    send_message(thread, parts=[named(Api(mate).upload(PNG).json())], sender=(mate, "team"))
    mate.delete()
    assert Attachment.objects.filter(thread=thread, owner=me).count() == 2


@pytest.mark.parametrize(
    ("part", "error"),
    [
        (embedded(HTML), InvalidPartsError),
        (embedded(b"PK\x03\x04", "application/zip", "a.zip"), InvalidPartsError),
        (embedded(b""), InvalidPartsError),
        (embedded() | {"url": data_url(PNG)[:-3]}, InvalidPartsError),
        (embedded() | {"mediaType": 5}, InvalidPartsError),
        (embedded(b"x" * 2000, "text/plain"), TooLargeError),
    ],
)
def test_a_file_that_cannot_be_taken_leaves_nothing(thread, root, settings, part, error):
    """Nor do those beside it."""
    settings.DURABLE_AGENTS = {"MAX_ATTACHMENT_BYTES": 1000}
    for parts in ([embedded(), part], [part, embedded()], [part]):
        with pytest.raises(error):
            send_message(thread, parts=parts)
    assert (stored(root), Attachment.objects.count(), Message.objects.count()) == (set(), 0, 0)


def test_the_files_within_a_message_are_limited_together(thread, settings, root):
    """Uploads were limited one by one."""
    settings.DURABLE_AGENTS = {"MAX_ATTACHMENT_BYTES": 100}
    half = embedded(b"x" * 60, "text/plain", "a.txt")
    send_message(thread, parts=[half])
    with pytest.raises(TooLargeError):
        send_message(thread, parts=[half, half])
    assert len(stored(root)) == 1


def test_a_message_has_so_many_files_and_no_more(api, thread, root):
    """However small."""
    small = embedded(b"x", "text/plain", "a.txt")
    send_message(thread, parts=[small] * MAX_FILES)
    assert problem(say(api, thread, *[small] * (MAX_FILES + 1))) == (400, "invalid_parts")
    url = api.upload(b"x").json()["url"]
    assert problem(say(api, thread, *[{"type": "file", "url": url}] * (MAX_FILES + 1))) == (400, "invalid_parts")
    assert len(stored(root)) == MAX_FILES + 1


def test_a_message_that_is_refused_leaves_no_file(api, thread, root, declare):
    """Whatever is wrong with it."""
    assert problem(say(api, thread, embedded(), {"type": "text", "text": "x" * 40_000})) == (413, "too_large")
    assert problem(say(api, thread, embedded(), {"type": "reasoning", "text": "x"})) == (400, "invalid_parts")
    with pytest.raises(InvalidPartsError):
        add_message(thread, "assistant", [embedded()])
    with pytest.raises(InvalidPartsError):
        create_thread("tested", messages=[{"role": "user", "parts": [embedded()]}, {"role": "tool", "content": "x"}])
    with pytest.raises(InvalidPartsError):
        send_message(thread, "Both", parts=[embedded()])
    assert (stored(root), Attachment.objects.count()) == (set(), 0)


def test_a_refused_message_leaves_an_upload_to_be_sent(api, thread, declare, agent):
    """The next one carries it."""
    made = api.upload(PNG).json()
    assert say(api, thread, named(made), {"type": "reasoning", "text": "x"}).status_code == 400
    assert Attachment.objects.get().thread is None
    assert say(api, thread, named(made)).status_code == 202


def test_the_same_message_again_leaves_no_double(api, thread, root):
    """A client that did not hear the answer asks again."""
    body = {"client_id": "m1"}
    first, again = (say(api, thread, embedded(), **body) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["parts"] == again.json()["parts"]
    made = {"agent": "tested", "client_id": "t1", "parts": [embedded()]}
    assert [api.post("threads/", made).status_code for _ in range(2)] == [201, 200]
    assert len(stored(root)) == Attachment.objects.count() == 2


def test_a_repeated_send_of_an_upload_is_the_same_message(api, thread):
    """It is in the thread already."""
    made = api.upload(PNG).json()
    told = [say(api, thread, named(made), client_id="m1") for _ in range(2)]
    assert [response.status_code for response in told] == [202, 200]
    assert Attachment.objects.count() == 1


@pytest.mark.parametrize("savepoint", [True, False])
def test_a_transaction_that_is_rolled_back_leaves_no_file(thread, root, savepoint):
    """As it never happened."""
    with transaction.atomic(), transaction.atomic(savepoint=savepoint):
        send_message(thread, parts=[embedded()])
        assert len(stored(root)) == 1
        transaction.set_rollback(True)
    assert (stored(root), Attachment.objects.count(), Message.objects.count()) == (set(), 0, 0)


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_is_committed_keeps_it(thread, root):
    """And one of ours, that was drawn again after another one's sake."""
    with transaction.atomic():
        send_message(thread, parts=[embedded()])
        assert stored(root) == places()
    send_message(thread, parts=[embedded()])
    assert stored(root) == places()
    assert len(places()) == 2


@pytest.mark.django_db(transaction=True)
def test_a_transition_that_is_retried_stores_a_file_once(thread, root, monkeypatch):
    """The database refused the first try for another one's sake."""
    execute, tries = statements.execute_all, []

    def refused_once(written, **where):
        tries.append(written)
        if len(tries) == 1:
            raise OperationalError("database is locked")
        return execute(written, **where)

    monkeypatch.setattr(statements, "execute_all", refused_once)
    send_message(thread, parts=[embedded()])
    assert len(tries) > 1
    assert stored(root) == places()
    assert len(places()) == 1


def test_an_export_names_the_files(thread):
    """Where to download them, and what they are."""
    send_message(thread, parts=[embedded()])
    row = Attachment.objects.get()
    [told] = export_thread(thread)["attachments"]
    assert told == {
        "id": str(row.pk),
        "url": f"/agents/attachments/{row.pk}/",
        "media_type": "image/png",
        "filename": "dot.png",
        "size": len(PNG),
        "created_at": row.created_at.isoformat(),
    }


def test_a_message_costs_the_same_number_of_queries_with_many_files(thread, django_assert_max_num_queries, api):
    """Rows are read and written together."""
    urls = [api.upload(PNG).json() for _ in range(8)]
    send_message(thread, parts=[named(urls[0])])
    with django_assert_max_num_queries(20) as few:
        send_message(thread, parts=[named(urls[1])])
    with django_assert_max_num_queries(len(few)):
        send_message(thread, parts=[named(one) for one in urls[2:]])


@pytest.mark.parametrize("part", [LOOK, {"type": "text", "text": ""}])
def test_a_message_has_only_so_many_parts(api, thread, part):
    """However short: each is stored, and shown, and told to the model."""
    parts = [LOOK, *[part] * (MAX_PARTS - 1)]
    assert say(api, thread, *parts).status_code == 202
    stop_thread(thread)
    assert problem(say(api, thread, *parts, part)) == (400, "invalid_parts")
    with pytest.raises(InvalidPartsError):
        edit_message(thread, list_messages(thread)[0].id, [*parts, part])
    assert Message.objects.filter(role="user").count() == 1
