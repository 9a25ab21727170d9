"""The model sees the files of a history, over HTTP as litellm sends them, and never a URL that leads anywhere."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from durable_agents import Agent, attachment_storage, create_thread, fork_thread, send_message, tool
from durable_agents.agents import registry
from durable_agents.engine import model_step
from durable_agents.models import Attachment, Stream
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.attachments.samples import PDF, PNG, data_url, embedded, named

pytestmark = pytest.mark.django_db

LOOK = {"type": "text", "text": "Look."}


@tool
def nod(times: int = 1) -> str:
    """Nod."""
    return "nodded"


@pytest.fixture
def seer():
    """Return an agent with a tool."""
    agent = Agent("seer", model="openai/gpt-x", tools=[nod], public=True)
    yield agent
    registry.remove("seer")


@pytest.fixture
def reads(monkeypatch):
    """Return the names of files that are read from the storage, as they are read."""
    found, opened = [], attachment_storage.storage

    class Noted:
        def open(self, name):
            found.append(name)
            return opened().open(name)

    monkeypatch.setattr(attachment_storage, "storage", Noted)
    monkeypatch.setattr(attachment_storage, "_recent", attachment_storage._Recent(10**6))
    return found


def shown(model, number=-1):
    """Return the content of the last user's message of a request, as it came over the wire."""
    asked = [message for message in model.requests[number].messages if message["role"] == "user"]
    return asked[-1]["content"]


def test_the_model_gets_the_file_itself(seer):
    """As it was uploaded or sent within the message; text as text."""
    notes = embedded("Gr\u00fc\u00dfe".encode(), "text/csv", "names.csv")
    thread = create_thread("seer", parts=[LOOK, embedded(), notes, embedded(PDF, "application/pdf", "a.pdf")])
    with ScriptedModel("A dot.", http=True) as model:
        run_until_idle()
    thread.refresh_from_db()
    assert thread.status == "completed"
    assert shown(model) == [
        LOOK,
        {"type": "image_url", "image_url": {"url": data_url(PNG)}},
        {"type": "text", "text": "names.csv:\nGr\u00fc\u00dfe"},
        {"type": "file", "file": {"file_data": data_url(PDF, "application/pdf"), "filename": "a.pdf"}},
    ]


def test_an_upload_is_seen_too_and_again_in_later_runs(seer, api, me):
    """And in a fork, by the same stored file."""
    made = api.upload(PNG, "dot.png").json()
    thread = create_thread("seer", owner=me, parts=[named(made)])
    with ScriptedModel("A dot.", "Still a dot.", "A dot here.", http=True) as model:
        run_until_idle()
        send_message(thread, "And now?")
        run_until_idle()
        send_message(fork_thread(thread), "And here?")
        run_until_idle()
    image = {"type": "image_url", "image_url": {"url": data_url(PNG)}}
    assert [request.messages[0]["content"] for request in model.requests] == [[image]] * 3


def test_no_request_has_an_address_in_it(seer):
    """Neither ours nor another."""
    create_thread("seer", parts=[LOOK, embedded()])
    with ScriptedModel("A dot.", http=True) as model:
        run_until_idle()
    assert "attachments/" not in str(model.requests[0].messages)


def test_a_file_that_is_gone_is_told_to_the_model(seer, root):
    """The run goes on."""
    thread = create_thread("seer", parts=[LOOK, embedded(), embedded(PDF, "application/pdf", "a.pdf")])
    (root / Attachment.objects.get(media_type="image/png").place).unlink()
    Attachment.objects.filter(media_type="application/pdf").update(thread=None)
    with ScriptedModel("I see nothing.", http=True) as model:
        run_until_idle()
    assert shown(model) == "Look.\n\n[dot.png: not there any more.]\n\n[a.pdf: not there any more.]"
    thread.refresh_from_db()
    assert thread.status == "completed"


def test_a_storage_that_does_not_answer_is_tried_again(seer, monkeypatch):
    """The model is not told that the file is gone."""
    thread = create_thread("seer", parts=[embedded()])
    read, tries = attachment_storage.read, []

    def failing(row):
        tries.append(row)
        if len(tries) == 1:
            raise OSError("no route to host")
        return read(row)

    monkeypatch.setattr(attachment_storage, "read", failing)
    with ScriptedModel("A dot.", http=True) as model:
        run_until_idle()
    thread.refresh_from_db()
    assert (thread.status, len(tries), len(model.requests)) == ("completed", 2, 1)
    first = Stream.objects.filter(thread=thread).order_by("number").first()
    assert (first.state, first.error_code) == ("aborted", "network")


def test_the_newest_files_are_shown_while_there_is_room(seer, settings):
    """A thread with many files stays usable."""
    settings.DURABLE_AGENTS = {"MAX_ATTACHMENT_BYTES": 100}
    thread = create_thread("seer")
    with ScriptedModel(*["Seen."] * 4, http=True) as model:
        for number in range(4):
            send_message(thread, parts=[embedded(f"{number}".encode() * 80, "text/plain", f"{number}.txt")])
            run_until_idle()
    told = [message["content"] for message in model.requests[-1].messages if message["role"] == "user"]
    left_out = [f"[{number}.txt: left out here, because newer files fill the request.]" for number in range(2)]
    assert told == [
        *left_out,
        *([{"type": "text", "text": f"{number}.txt:\n" + f"{number}" * 80}] for number in (2, 3)),
    ]


def test_a_file_is_read_once_for_all_steps_of_a_run(seer, reads):
    """Its process keeps it for a while."""
    create_thread("seer", parts=[embedded(), embedded()])
    with ScriptedModel([calls("nod")], [calls("nod")], "Done.", http=True) as model:
        run_until_idle()
    assert len(model.requests) == 3
    assert len(reads) == 2


def test_what_is_kept_of_files_is_bounded():
    """What was not asked for lately goes first."""
    kept = attachment_storage._Recent(10)
    for name in "ab":
        kept.keep(name, b"12345")
    assert kept.find("a") == b"12345"
    kept.keep("c", b"12345")
    assert [kept.find(name) for name in "abc"] == [b"12345", None, b"12345"]
    kept.keep("large", b"x" * 11)
    assert kept.find("large") is None
    kept.drop("a")
    assert kept.find("a") is None


def test_more_bytes_than_the_row_says_are_not_read(seer, root):
    """Whoever may have put them there."""
    create_thread("seer", parts=[embedded(b"12345", "text/plain", "a.txt")])
    (root / Attachment.objects.get().place).write_bytes(b"123456789")
    with ScriptedModel("Seen.", http=True) as model:
        run_until_idle()
    assert shown(model) == [{"type": "text", "text": "a.txt:\n12345"}]


def queries(claims):
    """Return how many queries the loading of these steps takes."""
    with CaptureQueriesContext(connection) as captured:
        model_step._load_steps(claims)
    return len(captured)


def test_loading_takes_one_query_for_all_files_of_all_threads(agent, worker):
    """And none where there are no files."""
    create_thread(agent, prompt="Hi")
    without = queries(worker.claim())
    for count in (1, 5):
        thread = create_thread(agent, parts=[embedded()] * count)
        send_message(thread, parts=[embedded()])
    claims = worker.claim()
    assert len(claims) == 2
    assert queries(claims) == without + 1
