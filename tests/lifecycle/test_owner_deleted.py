"""What becomes of the threads of a deleted user: `OWNER_ON_DELETE`."""

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.test import override_settings

from durable_agents import approve_tool_call, create_thread, list_messages, send_message
from durable_agents.exceptions import PermissionDeniedError
from durable_agents.models import Attachment, Message, Stream, Thread, ToolCall, ToolCallStatus
from tests.attachments.samples import embedded
from tests.lifecycle.stage import calling

pytestmark = pytest.mark.django_db
KEEP = override_settings(DURABLE_AGENTS={"OWNER_ON_DELETE": "keep"})


class Colleague(User):
    """The same users, under another name."""

    class Meta:
        proxy = True
        app_label = "auth"


@pytest.fixture
def owner():
    """Return a user."""
    return get_user_model().objects.create(username="ada")


@pytest.fixture
def shared(agent, owner):
    """Return a running thread that an organisation shares."""
    return create_thread(agent, owner=owner, scope="acme", client_id="c1", prompt="Hi", by=owner)


@pytest.fixture
def private(agent, owner):
    """Return a thread without a scope."""
    return create_thread(agent, owner=owner, prompt="Hi")


WAYS = pytest.mark.parametrize(
    "delete",
    [
        lambda owner: owner.delete(),
        lambda owner: get_user_model().objects.filter(pk=owner.pk).delete(),
        lambda owner: Colleague.objects.filter(pk=owner.pk).delete(),
    ],
    ids=["user", "queryset", "proxy"],
)


@WAYS
def test_all_threads_go_by_default(shared, private, owner, delete):
    """Also those that are shared."""
    delete(owner)
    assert not Thread.objects.exists()


@WAYS
def test_shared_threads_stay_without_an_owner(shared, private, owner, delete):
    """A thread without a scope goes: nobody else could see it."""
    with KEEP:
        delete(owner)
    thread = Thread.objects.get()
    assert (thread.pk, thread.owner, thread.scope, thread.client_id) == (shared.pk, None, "acme", None)
    [message] = Message.objects.filter(role="user")
    assert (list_messages(thread)[0].text, message.sender) == ("Hi", None)
    assert not Stream.objects.filter(owner__isnull=False).exists()


def test_a_run_goes_on(shared, owner, worker):
    """Under the claim of the worker that has it."""
    claim = worker.claim_step()
    with KEEP:
        owner.delete()
    worker.answer("Hello.", claim=claim)
    assert Thread.objects.get().status == "completed"
    send_message(shared, "And now?")
    worker.answer("Now, too.")
    assert [message.text for message in list_messages(shared)] == ["Hi", "Hello.", "And now?", "Now, too."]


def test_two_deleted_users_may_have_chosen_the_same_id(agent, shared):
    """Without an owner, ids of clients would be unique in the whole organisation."""
    bob = get_user_model().objects.create(username="bob")
    create_thread(agent, owner=bob, scope="acme", client_id="c1")
    with KEEP:
        get_user_model().objects.all().delete()
    assert list(Thread.objects.values_list("owner", "client_id")) == [(None, None)] * 2


def test_threads_of_others_keep_their_owner(agent, shared, owner):
    """And their client's id."""
    bob = get_user_model().objects.create(username="bob")
    other = create_thread(agent, owner=bob, scope="acme", client_id="c1")
    with KEEP:
        owner.delete()
    other.refresh_from_db()
    assert (other.owner, other.client_id) == (bob, "c1")


def test_a_call_that_waits_for_the_owner_waits_for_staff(shared, owner, worker):
    """Colleagues may not decide in the owner's place."""
    worker.answer("", calling())
    ToolCall.objects.update(status=ToolCallStatus.APPROVAL_REQUESTED)
    bob = get_user_model().objects.create(username="bob")
    chief = get_user_model().objects.create(username="chief", is_staff=True)
    with KEEP:
        owner.delete()
    call = ToolCall.objects.get()
    with pytest.raises(PermissionDeniedError):
        approve_tool_call(shared, call.tool_call_id, by=bob)
    assert approve_tool_call(shared, call.tool_call_id, by=chief).status == "pending"


def test_files_stay_with_their_thread(agent, owner):
    """Those of threads that go, and those that were not sent, go."""
    create_thread(agent, owner=owner, scope="acme", parts=[embedded()])
    create_thread(agent, owner=owner, parts=[embedded()])
    Attachment.objects.create(owner=owner, scope="acme", file="x", media_type="text/plain", size=1)
    with KEEP:
        owner.delete()
    assert [(row.owner, row.thread.scope) for row in Attachment.objects.all()] == [(None, "acme")]


def test_the_admins_page_lists_what_will_be_deleted(shared, private, owner, admin_client):
    """Before it asks whether to do so."""
    with KEEP:
        page = admin_client.get(f"/admin/auth/user/{owner.pk}/delete/").content.decode()
    assert str(private.pk) in page
    assert str(shared.pk) not in page
