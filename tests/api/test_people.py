"""What a caller sees of people: the senders of messages, who has answered, and whether the caller may decide a call."""

import pytest

from durable_agents import create_thread, list_messages, send_message, tool
from durable_agents.models import Message, ToolCall
from durable_agents.reading import export_thread
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.api.calls import Api, person
from tests.tools.outcomes import SharedPolicy

pytestmark = pytest.mark.django_db


class Discreet(SharedPolicy):
    """Shows people to staff only, and calls Eve by another name."""

    def person(self, request, user, *, thread):
        """Return what the caller may see."""
        if not request.user.is_staff:
            return None
        if user.get_username().startswith("eve"):
            return {"id": "x", "name": "E."}
        return super().person(request, user, thread=thread)


@tool(needs_approval=True, approved_by="other")
def pay(amount: int) -> str:
    """Pay."""
    return "paid"


@pytest.fixture
def people(declare):
    """Declare the agent, and return who asks and three who look: one is staff."""
    declare(public=True, tools=[pay])
    return {name: person(name, is_staff=name == "sue") for name in ("ada", "bob", "sue", "eve")}


def name_of(user):
    return {"id": str(user.pk), "name": user.get_username()}


def test_a_message_names_its_sender_to_everybody_who_sees_it(people, settings):
    """At the top and in the metadata of the UI message; not where the project wrote it."""
    settings.DURABLE_AGENTS = {"POLICY": "tests.tools.outcomes.SharedPolicy"}
    thread = create_thread("tested", scope="acme", prompt="One.")
    sent = Api(people["ada"]).post(f"threads/{thread.pk}/messages/", {"prompt": "Two.", "metadata": {"a": 1}}).json()
    one, two = Api(people["bob"]).get(f"threads/{thread.pk}/messages/").json()["results"]
    ada = name_of(people["ada"])
    assert (one["sender"], one["metadata"]) == (None, {})
    assert two == sent
    assert (two["sender"], two["metadata"]) == (ada, {"a": 1, "sender": ada})


def test_a_client_cannot_name_another_sender(people, settings):
    """What it writes into the metadata is not shown."""
    settings.DURABLE_AGENTS = {"POLICY": "tests.tools.outcomes.SharedPolicy"}
    thread = create_thread("tested", scope="acme", prompt="One.", metadata={})
    forged = {"sender": name_of(people["sue"])}
    Api(people["ada"]).post(f"threads/{thread.pk}/messages/", {"prompt": "Two.", "metadata": forged})
    send_message(thread, "Three.", metadata=forged)
    _, two, three = Api(people["bob"]).get(f"threads/{thread.pk}/messages/").json()["results"]
    assert (two["sender"], two["metadata"]) == (name_of(people["ada"]), {"sender": name_of(people["ada"])})
    assert (three["sender"], three["metadata"]) == (None, {})


@pytest.mark.parametrize(("viewer", "shown"), [("bob", None), ("sue", "E.")])
def test_the_policy_says_what_is_shown_of_people(people, settings, viewer, shown):
    """Of senders and of who decided, in lists, responses and exports."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.Discreet"}
    thread = create_thread("tested", scope="acme", prompt="Pay.", by=people["ada"])
    send_message(thread, "Now.", by=people["eve"])
    with ScriptedModel(calls("pay", amount=5)):
        run_until_idle()
    call = ToolCall.objects.get()
    path = f"threads/{thread.pk}"
    Api(people["ada"]).post(f"{path}/tool-calls/{call.tool_call_id}/approve/", {})
    ToolCall.objects.update(approval_decided_by=people["eve"], answered_by_user=people["eve"])
    seen = Api(people[viewer])
    [_, message, *_] = seen.get(f"{path}/messages/").json()["results"]
    assert message["sender"] == (shown and {"id": "x", "name": "E."})
    [decided] = seen.get(f"{path}/tool-calls/").json()["results"]
    assert (decided["approval"]["decided_by"], decided["answered_by_user"] and decided["answered_by_user"]["name"]) == (
        shown,
        shown,
    )
    exported = seen.get(f"{path}/export/").json()
    senders = [row["sender"] and row["sender"]["name"] for row in exported["messages"] if row["role"] == "user"]
    assert senders[1] == shown
    assert exported["tool_calls"][0]["approval"]["decided_by"] == shown


def test_from_python_senders_are_named(people):
    """No policy is asked."""
    thread = create_thread("tested", scope="acme", prompt="One.", by=people["ada"])
    [message] = list_messages(thread)
    assert (message.sender, message.metadata["sender"]) == (name_of(people["ada"]), name_of(people["ada"]))
    assert export_thread(thread)["messages"][0]["sender"] == name_of(people["ada"])


def test_a_part_says_whether_the_caller_may_decide(people, settings):
    """Nobody else's answer is in it, and nothing once it is decided."""
    settings.DURABLE_AGENTS = {"POLICY": "tests.tools.outcomes.SharedPolicy"}
    thread = create_thread("tested", scope="acme", prompt="Pay.", by=people["ada"])
    with ScriptedModel(calls("pay", amount=5)):
        run_until_idle()
    call = ToolCall.objects.get()

    def approval(name):
        answer = Api(people[name]).get(f"threads/{thread.pk}/messages/").json()["results"][-1]
        return answer["parts"][-1]["approval"]

    expected = {"ada": False, "bob": True}
    assert {name: approval(name) for name in expected} == {
        name: {"id": call.tool_call_id, "canDecide": may} for name, may in expected.items()
    }
    Api(people["bob"]).post(f"threads/{thread.pk}/tool-calls/{call.tool_call_id}/reject/", {})
    assert approval("bob") == {"id": call.tool_call_id, "approved": False}


@pytest.mark.parametrize("number", [1, 5])
def test_a_list_takes_as_many_queries_for_many_senders_and_calls(
    people, settings, django_assert_max_num_queries, number
):
    settings.DURABLE_AGENTS = {"POLICY": "tests.tools.outcomes.SharedPolicy"}
    thread = create_thread("tested", scope="acme", prompt="Pay.", by=people["ada"])
    with ScriptedModel([calls("pay", amount=amount) for amount in range(number)]):
        run_until_idle()
    Message.objects.bulk_create(
        Message(thread=thread, role="user", position=10 + n, rev=900 + n, sender=people["eve"], parts=[])
        for n in range(number)
    )
    api = Api(people["bob"])
    api.get("threads/")
    with django_assert_max_num_queries(10):
        results = api.get(f"threads/{thread.pk}/messages/").json()["results"]
    assert len(results) == 2 + number
    assert sum(part.get("approval", {}).get("canDecide", False) for part in results[1]["parts"]) == number
