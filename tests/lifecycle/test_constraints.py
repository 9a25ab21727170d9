"""What the database itself refuses, whatever the code does."""

from uuid import uuid4

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from durable_agents import create_thread
from durable_agents.models import Delta, Message, Stream, Thread, ToolCall
from tests.lifecycle.stage import calling, open_stream

pytestmark = pytest.mark.django_db


@pytest.fixture
def thread(agent):
    """Return a thread with a step due."""
    return create_thread(agent, prompt="Hi")


def doubled(row, **changes):
    """Store a copy of a row with these changes."""
    row.pk = uuid4()
    row.rev = 1000
    for name, value in changes.items():
        setattr(row, name, value)
    with transaction.atomic():
        row.save(force_insert=True)


def refused(row, **changes):
    """Check that the database refuses such a copy."""
    with pytest.raises(IntegrityError):
        doubled(row, **changes)


@pytest.mark.parametrize("model", [*apps.get_app_config("durable_agents").get_models()], ids=lambda row: row.__name__)
def test_the_database_has_every_constraint_and_index_of_the_models(model):
    """A migration may drop one that its state still has."""
    with connection.cursor() as cursor:
        stored = connection.introspection.get_constraints(cursor, model._meta.db_table)
    assert {item.name for item in (*model._meta.constraints, *model._meta.indexes)} <= set(stored)


@pytest.mark.parametrize("state", ["pending", "streaming"])
def test_a_thread_has_at_most_one_open_stream(thread, state):
    """The unit of mutual exclusion."""
    refused(open_stream(thread), number=2, state=state)


def test_a_thread_may_have_many_closed_streams(thread):
    """Attempts are kept."""
    for number in (2, 3):
        doubled(open_stream(thread), number=number, state="aborted")
    assert Stream.objects.count() == 3


def test_the_number_of_a_stream_is_unique_in_its_thread(thread):
    """It counts the attempts."""
    refused(open_stream(thread), state="aborted")


def test_the_id_of_a_tool_call_is_unique_in_its_thread(thread, worker):
    """Not in the world: forks have the same."""
    worker.answer("", calling())
    refused(ToolCall.objects.get())
    doubled(ToolCall.objects.get(), thread=create_thread("tested"))


def test_the_position_of_a_message_is_unique_in_its_thread(thread):
    """A total order; queued ones have none."""
    refused(Message.objects.get(role="user"))
    for _ in range(2):
        doubled(Message.objects.get(role="user", position=1), position=None)


def test_the_client_id_of_a_message_is_unique_among_those_shown(thread):
    """One that was edited away keeps its own."""
    Message.objects.filter(role="user").update(client_id="m1")
    refused(Message.objects.get(client_id="m1"), position=None)
    Message.objects.filter(client_id="m1").update(superseded_at=Now())
    doubled(Message.objects.get(client_id="m1"), position=None, superseded_at=None)


@pytest.mark.parametrize("owned", [False, True])
def test_the_client_id_of_a_thread_is_unique_per_owner_and_scope(agent, owned, django_user_model):
    """With an owner and without."""
    owner = django_user_model.objects.create_user("ann") if owned else None
    refused(create_thread(agent, owner=owner, client_id="a"))


def test_the_seq_of_a_delta_is_unique_in_its_stream(thread):
    """Contiguous from 0."""
    Delta.objects.create(stream=open_stream(thread), seq=0, chunks=[])
    with pytest.raises(IntegrityError), transaction.atomic():
        Delta.objects.create(stream=open_stream(thread), seq=0, chunks=[])


@pytest.mark.parametrize(
    ("model", "field"),
    [(Thread, "status"), (Message, "role"), (Stream, "state"), (ToolCall, "status"), (ToolCall, "kind")],
)
def test_a_value_outside_the_enum_is_refused(thread, worker, model, field):
    """By the database itself."""
    worker.answer("", calling())
    with pytest.raises(IntegrityError), transaction.atomic():
        model.objects.update(**{field: "nonsense"})
