"""docs/howto/tenancy.md: organisations, and people who leave."""

from tests.foreign.shop.site import SEED, Person, Shop, SignIn, text_of
from tests.servers.model import ModelUnderTest, Reply

JOIN = SEED.split("acme =")[0]


def test_another_organisation_finds_nothing(model: ModelUnderTest, ada: Person, eve: Person):
    thread = ada.ask("Hello?")
    ada.answer(thread)
    for path in ("", "messages/", "tool-calls/", "usage/", "export/", "events/"):
        assert eve.get(f"threads/{thread}/{path}").status_code == 404, path
    for path in ("messages/", "stop/", "resume/", "regenerate/", "fork/"):
        assert eve.post(f"threads/{thread}/{path}", {"prompt": "Hello?"}).status_code == 404, path
    assert thread not in [one["id"] for one in eve.get("threads/").json()["results"]]


def test_members_continue_each_others_threads_and_only_the_owner_deletes(
    model: ModelUnderTest, ada: Person, bob: Person
):
    thread = ada.ask("Hello?")
    ada.answer(thread)
    bob.send(thread, "Hello, both.")
    assert bob.answer(thread) == "Hello."
    assert bob.delete(f"threads/{thread}/").status_code == 403
    assert ada.delete(f"threads/{thread}/").status_code == 204


def test_a_uuid_in_the_policys_context_is_stored_as_a_text(shop: Shop, model: ModelUnderTest, ada: Person):
    """Item 8: it was an HTML page with status 500."""
    thread = ada.ask("Hello?")
    ada.answer(thread)
    found = shop.value(
        "from durable_agents import get_thread\n"
        f"thread = get_thread('{thread}')\n"
        "value = [thread.context['organisation'], thread.scope, str(thread.owner.organisation_id)]"
    )
    assert len(set(found)) == 1, found


def test_the_threads_of_a_colleague_who_has_left_stay_with_the_organisation(
    shop: Shop, model: ModelUnderTest, site: str, bob: Person, sign_in: SignIn
):
    """Item 7: `OWNER_ON_DELETE` is "keep"."""
    shop.shell(JOIN + "person('dan', Organisation.objects.get(name='Acme'))")
    dan = sign_in(site, "dan")
    thread = dan.ask("Hello?")
    dan.answer(thread)
    shop.shell("from people.models import User\nUser.objects.get(username='dan').delete()")
    assert bob.messages(thread)[0]["sender"] is None
    model.answer_with(Reply(text="Dan has left."))
    bob.send(thread, "Who was it that asked?")
    assert bob.answer(thread) == "Dan has left."
    assert text_of(bob.messages(thread)[0]) == "Hello?"
    assert bob.delete(f"threads/{thread}/").status_code == 204


def test_the_audit_log_says_who_stopped_a_run_and_how(shop: Shop, model: ModelUnderTest, ada: Person, bob: Person):
    thread = ada.ask("Hello?")
    bob.post(f"threads/{thread}/stop/")
    bob.wait(thread)
    found = shop.value(
        "from durable_agents.models import AuditEntry\n"
        f"entries = AuditEntry.objects.filter(thread_id='{thread}')\n"
        "value = list(entries.values_list('action', 'user__username', 'via'))"
    )
    assert ["create_thread", "ada", "rest"] in found
    assert ["stop_thread", "bob", "rest"] in found or bob.thread(thread)["status"] == "completed"
