"""docs/howto/agents.md: models and tools for each thread, renames, and code that is gone."""

from tests.foreign.shop.site import Person, Shop, SignIn
from tests.servers.model import Call, ModelUnderTest, Reply

REFUND = Call(name="refund", arguments={"number": 7, "amount": "20"})


def tools_of(request) -> list[str]:
    """Return the names of the tools that the model was offered."""
    return [one["function"]["name"] for one in request["tools"]]


def rename(shop: Shop, thread: str, *, agent: str) -> None:
    """Make the thread one that was created under another name of the agent."""
    find = f"from durable_agents.models import Thread\nthreads = Thread.objects.filter(pk='{thread}')\n"
    shop.shell(f"{find}threads.update(agent='{agent}')")


def test_an_organisation_without_refunds_is_not_offered_them(model: ModelUnderTest, ada: Person, eve: Person):
    ada.answer(ada.ask("Hello?"))
    eve.answer(eve.ask("Hello?"))
    ours, theirs = map(tools_of, model.requests)
    assert "refund" in ours
    assert "refund" not in theirs
    assert "find_order" in theirs


def test_a_tool_that_configure_leaves_out_is_refused_even_after_its_approval(
    shop: Shop, model: ModelUnderTest, ada: Person, bob: Person
):
    """Item 5: an open call does not outlive its permission, and the model learns of it."""
    model.answer_with(Reply(calls=(REFUND,)), Reply(text="I may not pay you back any more."))
    thread = ada.ask("I want my money back.")
    call = ada.call(thread, "refund", "approval_requested")
    allow = "from people.models import Organisation\nOrganisation.objects.filter(name='Acme').update(may_refund={})"
    shop.shell(allow.format(False))
    try:
        assert bob.decide(thread, call).status_code == 200
        assert ada.answer(thread) == "I may not pay you back any more."
    finally:
        shop.shell(allow.format(True))
    assert ada.call(thread, "refund", "failed")["error"]
    assert "not available" in str(model.requests[-1]["messages"][-1])


def test_threads_of_a_renamed_agent_go_on_under_the_new_name(shop: Shop, model: ModelUnderTest, ada: Person):
    """Item 5: as if the thread had been created while the agent was called `helpdesk`."""
    thread = ada.ask("Hello?")
    ada.answer(thread)
    rename(shop, thread, agent="helpdesk")
    model.answer_with(Reply(text="Still here."))
    ada.send(thread, "Are you there?")
    assert ada.answer(thread) == "Still here."
    assert ada.thread(thread)["agent"] == "support"
    for name in ("support", "helpdesk"):
        found = ada.get("threads/", params={"agent": name, "limit": 200}).json()["results"]
        assert thread in [one["id"] for one in found], name


def test_the_model_may_call_a_renamed_tool_by_its_new_name_only(model: ModelUnderTest, ada: Person):
    """Item 5."""
    ada.answer(ada.ask("Hello?"))
    assert "find_order" in tools_of(model.requests[-1])
    assert "search" not in tools_of(model.requests[-1])


def test_threads_of_an_agent_that_is_gone_stay_in_the_admin_and_in_python(
    shop: Shop, model: ModelUnderTest, site: str, ada: Person, sign_in: SignIn
):
    """Item 5."""
    thread = ada.ask("Hello?")
    ada.answer(thread)
    rename(shop, thread, agent="gone")
    assert ada.get(f"threads/{thread}/").status_code == 404
    page = sign_in(site, "root").http.get(f"/admin/durable_agents/thread/{thread}/change/")
    assert page.status_code == 200
    assert "Hello." in page.text
    found = shop.value(
        "from durable_agents import delete_thread, list_messages\n"
        "from durable_agents.models import Thread\n"
        f"texts = [message.text for message in list_messages('{thread}')]\n"
        f"delete_thread('{thread}')\n"
        f"value = [texts, Thread.objects.filter(pk='{thread}').exists()]"
    )
    assert found == [["Hello?", "Hello."], False]


def test_the_next_model_call_knows_a_new_context(shop: Shop, model: ModelUnderTest, ada: Person):
    """Item 8: `update_thread` from the project's own code."""
    thread = ada.ask("Hello?")
    ada.answer(thread)
    assert "Plan: basic" in str(model.requests[-1]["messages"][0])
    found = shop.value(
        "from durable_agents import get_thread, update_thread\n"
        f"thread = get_thread('{thread}')\n"
        "value = update_thread(thread, title='Gold', context=thread.context | {'plan': 'gold'}).context"
    )
    assert found["plan"] == "gold"
    ada.send(thread, "And now?")
    ada.answer(thread)
    assert "Plan: gold" in str(model.requests[-1]["messages"][0])
    assert ada.thread(thread)["title"] == "Gold"


def test_a_context_that_is_no_json_object_is_refused_with_its_key(shop: Shop, model: ModelUnderTest, ada: Person):
    """Item 8."""
    thread = ada.ask("Hello?")
    ada.answer(thread)
    said = shop.value(
        "from durable_agents import update_thread\n"
        "from durable_agents.exceptions import InvalidJSONObjectError\n"
        "from people.models import User\n"
        "try:\n"
        f"    update_thread('{thread}', context={{'user': User.objects.first()}})\n"
        "except InvalidJSONObjectError as error:\n"
        "    value = str(error)"
    )
    assert "user" in said


def test_callbacks_write_in_the_transaction_of_the_change(shop: Shop, model: ModelUnderTest, ada: Person):
    model.answer_with(Reply(calls=(Call(name="find_order", arguments={"number": 7}),)), Reply(text="It is open."))
    thread = ada.ask("Where is order 7?")
    ada.answer(thread)
    found = shop.value(
        "from shop.models import Ticket\n"
        f"ticket = Ticket.objects.select_related('thread').get(thread='{thread}')\n"
        "value = [ticket.agent_status, ticket.steps, ticket.thread.title]"
    )
    assert found == ["completed", 2, "Where is order 7?"]
