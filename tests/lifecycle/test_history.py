"""Messages that come into a thread without a run, threads that begin with a history, and people who are forgotten."""

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError
from django.test import TestCase

from durable_agents import create_thread, delete_thread, resume_thread, send_message
from durable_agents.exceptions import InvalidPartsError, ThreadBusyError
from durable_agents.lifecycle import add_message, erase
from durable_agents.llm import openai_messages
from durable_agents.models import Message, Stream, Thread
from durable_agents.parts import text_of
from durable_agents.transcript import turns, ui_messages
from tests.lifecycle.stage import open_stream, status_of

pytestmark = pytest.mark.django_db
HISTORY = [
    {"role": "system", "content": "The customer is impatient."},
    {"role": "user", "parts": [{"type": "text", "text": "Where is it?"}]},
    {"role": "assistant", "content": "On its way."},
]


def shown(thread):
    """Role and text of each message."""
    return [(m["role"], text_of(m["parts"])) for m in ui_messages(Message.objects.shown().filter(thread=thread))]


def told(thread):
    """What the model is told of the thread."""
    return [(m["role"], m["content"]) for m in openai_messages("", turns(thread.pk), max_result_bytes=1000)]


def test_a_thread_begins_with_a_history_and_no_run(agent):
    """It is at rest, and the next message is answered with all of it in view."""
    thread = create_thread(agent, messages=HISTORY)
    assert status_of(thread) == "completed"
    assert shown(thread) == [
        ("system", "The customer is impatient."),
        ("user", "Where is it?"),
        ("assistant", "On its way."),
    ]
    send_message(thread, "Since Monday!")
    assert told(thread) == [*shown(thread)[:3], ("user", "Since Monday!")]


def test_a_history_that_ends_with_a_question_is_answered_on_demand(agent, worker):
    """At once, or when somebody resumes the thread."""
    first = create_thread(agent, messages=HISTORY[:2], start=True)
    later = create_thread(agent, messages=HISTORY[:2])
    assert (status_of(first), status_of(later)) == ("streaming", "completed")
    resume_thread(later)
    for claim in worker.claim():
        worker.answer("Here.", claim=claim)
    assert {status_of(first), status_of(later)} == {"completed"}
    assert shown(later)[-1] == ("assistant", "Here.")


def test_a_history_that_ends_with_an_answer_starts_nothing(agent):
    """Nobody asked anything."""
    assert create_thread(agent, messages=HISTORY, start=True).status == "completed"


def test_a_prompt_may_be_stored_without_a_run(agent):
    """For later."""
    thread = create_thread(agent, prompt="Hi", start=False)
    assert (status_of(thread), shown(thread)) == ("completed", [("user", "Hi")])
    resume_thread(thread)
    assert open_stream(thread).state == "pending"


def test_a_message_is_added_to_a_thread_at_rest(agent):
    """Of whatever role; no run begins."""
    thread = create_thread(agent)
    for role, text in (("user", "Hi"), ("assistant", "Hello."), ("system", "Be brief.")):
        add_message(thread, role, text)
    assert shown(thread) == [("user", "Hi"), ("assistant", "Hello."), ("system", "Be brief.")]
    assert status_of(thread) == "completed"
    resume_thread(thread)
    assert status_of(thread) == "completed"


def test_a_busy_thread_takes_no_message_this_way(agent):
    """``send_message`` is for that."""
    thread = create_thread(agent, prompt="Hi")
    with pytest.raises(ThreadBusyError):
        add_message(thread, "user", "More")


@pytest.mark.parametrize(
    ("role", "parts"),
    [
        ("tool", "Hi"),
        ("user", ""),
        ("user", [{"type": "tool-add"}]),
        ("assistant", [{"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,aGk="}]),
    ],
)
def test_what_is_no_message_is_refused_and_nothing_is_stored(agent, role, parts):
    """Neither alone nor in a history."""
    thread = create_thread(agent)
    with pytest.raises(InvalidPartsError):
        add_message(thread, role, parts)
    with pytest.raises(InvalidPartsError):
        create_thread(agent, messages=[*HISTORY, {"role": role, "parts": parts}])
    assert (Thread.objects.count(), Message.objects.count()) == (1, 0)


@pytest.fixture
def threads(agent, worker):
    """Two people with a thread each in two scopes, all with an answer; one more thread was deleted."""
    people = [get_user_model().objects.create(username=name) for name in ("ada", "bob")]
    for person in people:
        for scope in ("acme", "initech"):
            create_thread(agent, owner=person, scope=scope, prompt="Hi")
            worker.answer("Hello.")
    gone = create_thread(agent, owner=people[0], scope="acme", prompt="Hi")
    worker.answer("Hello.")
    delete_thread(gone)
    return people


def test_a_person_is_forgotten_with_what_they_have_cost(threads):
    """The others stay."""
    ada, bob = threads
    assert erase(owner=ada) == 2
    assert set(Thread.objects.values_list("owner", flat=True)) == {bob.pk}
    assert set(Stream.objects.values_list("owner", flat=True)) == {bob.pk}


def test_a_scope_is_forgotten(threads):
    """Of everybody, or of one."""
    ada, _ = threads
    assert erase(owner=ada, scope="acme") == 1
    assert erase(scope="initech") == 2
    assert [(t.owner.username, t.scope) for t in Thread.objects.all()] == [("bob", "acme")]
    assert Stream.objects.count() == 1


@pytest.mark.parametrize("nobody", [{}, {"scope": ""}])
def test_nobody_is_not_everybody(threads, nobody):
    """A forgotten argument erases nothing."""
    with pytest.raises(ValueError, match="owner"):
        erase(**nobody)
    assert Thread.objects.count() == 4


def test_browsers_are_told_of_what_was_erased(threads, bells):
    """They show it else until they look by themselves."""
    ada, _ = threads
    gone = set(Thread.objects.filter(owner=ada).values_list("pk", flat=True))
    bells.forget()
    with TestCase.captureOnCommitCallbacks(execute=True):
        erase(owner=ada)
    assert set(bells.browsers) == gone


@pytest.mark.django_db(transaction=True)
def test_a_busy_database_does_not_leave_it_half_done(threads, monkeypatch):
    """Each thread is tried again, and one that somebody else has deleted meanwhile does not count."""
    ada, _ = threads
    delete, tries = Thread.delete, []

    def refused_once(self, **options):
        tries.append(self.pk)
        if len(tries) == 1:
            raise OperationalError("database is locked")
        if len(tries) == 2:
            Thread.objects.filter(owner=ada).exclude(pk=self.pk).delete()
        return delete(self, **options)

    monkeypatch.setattr(Thread, "delete", refused_once)
    assert erase(owner=ada) == 1
    assert not Thread.objects.filter(owner=ada).exists()
    assert not Stream.objects.filter(owner=ada).exists()
