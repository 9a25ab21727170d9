"""docs/howto/approvals.md: who may decide, and what the model learns."""

import re

import pytest

from tests.foreign.shop.site import Person, Shop, SignIn
from tests.servers.model import Call, ModelUnderTest, Reply

REFUND = Reply(calls=(Call(name="refund", arguments={"number": 7, "amount": "20"}),))
REFUNDS = "from shop.models import Refund\nvalue = list(Refund.objects.order_by('pk').values_list('amount', flat=True))"


def test_a_permission_decides_who_approves_a_refund(shop: Shop, model: ModelUnderTest, ada: Person, bob: Person):
    """Item 2: the owner needs the permission, too."""
    before = shop.value(REFUNDS)
    model.answer_with(REFUND, Reply(text="You have your money back."))
    thread = ada.ask("I want my money back.")
    call = ada.call(thread, "refund", "approval_requested")
    assert ada.part(thread, "refund")["approval"]["canDecide"] is False
    assert bob.part(thread, "refund")["approval"]["canDecide"] is True
    assert ada.decide(thread, call).status_code == 403
    assert bob.decide(thread, call, reason="He is right.").status_code == 200
    assert ada.answer(thread) == "You have your money back."
    assert shop.value(REFUNDS) == [*before, "20.00"]
    approval = ada.call(thread, "refund", "completed")["approval"]
    assert (approval["decided_by"], approval["reason"]) == ("bob", "He is right.")
    assert bob.decide(thread, call).status_code == 409


def test_a_rejection_reaches_the_model_with_its_reason(model: ModelUnderTest, ada: Person, bob: Person):
    model.answer_with(REFUND, Reply(text="They say no."))
    thread = ada.ask("I want my money back.")
    call = ada.call(thread, "refund", "approval_requested")
    assert bob.decide(thread, call, "reject", reason="Too late.").status_code == 200
    assert ada.answer(thread) == "They say no."
    assert "Too late." in str(model.requests[-1]["messages"][-1])


def test_who_approves_may_change_the_arguments(shop: Shop, model: ModelUnderTest, ada: Person, bob: Person):
    model.answer_with(REFUND, Reply(text="You get half of it."))
    thread = ada.ask("I want my money back.")
    call = ada.call(thread, "refund", "approval_requested")
    wrong = bob.decide(thread, call, arguments={"number": 7, "amount": "a lot"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_parts")
    assert bob.decide(thread, call, arguments={"number": 7, "amount": "10"}).status_code == 200
    ada.answer(thread)
    assert shop.value(REFUNDS)[-1] == "10.00"


@pytest.mark.parametrize("requester", ["ada", "sue"])
def test_a_requester_does_not_approve_a_discount_even_as_staff(
    model: ModelUnderTest, site: str, bob: Person, requester: str, sign_in: SignIn
):
    """Item 2: `approved_by="other"`."""
    person = sign_in(site, requester)
    model.answer_with(Reply(calls=(Call(name="give_discount", arguments={"percent": 50}),)), Reply(text="Half price!"))
    thread = person.ask("Give me half of it for free.")
    call = person.call(thread, "give_discount", "approval_requested")
    assert person.decide(thread, call).status_code == 403
    assert bob.decide(thread, call).status_code == 200
    assert person.answer(thread) == "Half price!"


def test_a_small_discount_needs_nobody(model: ModelUnderTest, ada: Person):
    model.answer_with(Reply(calls=(Call(name="give_discount", arguments={"percent": 5}),)), Reply(text="A little."))
    assert ada.answer(ada.ask("Give me a discount.")) == "A little."


def test_a_function_decides_who_may_close_the_account(model: ModelUnderTest, ada: Person, cem: Person, eve: Person):
    """Item 2: and others do not even learn that there is a call."""
    model.answer_with(Reply(calls=(Call(name="close_account", arguments={}),)), Reply(text="Closed."))
    thread = ada.ask("Close our account.")
    call = ada.call(thread, "close_account", "approval_requested")
    assert eve.decide(thread, call).status_code == 404
    assert cem.decide(thread, call).status_code == 200
    assert ada.answer(thread) == "Closed."


def test_the_admin_lists_waiting_calls_in_german(model: ModelUnderTest, site: str, ada: Person, sign_in: SignIn):
    model.answer_with(REFUND, Reply(text="You have your money back."))
    thread = ada.ask("I want my money back.")
    call = ada.call(thread, "refund", "approval_requested")
    staff = sign_in(site, "root")
    listed = staff.http.get("/admin/durable_agents/toolcall/")
    [inbox] = set(re.findall(r'href="([^"]*inbox[^"]*)"', listed.text))
    page = staff.http.get(inbox)
    assert page.status_code == 200
    assert "Erlauben" in page.text
    assert str(call["arguments"]["amount"]) in page.text
    assert ada.http.get(inbox).status_code in {302, 403}
    assert ada.post(f"threads/{thread}/stop/").status_code == 200


def test_a_page_of_the_shop_lists_what_waits_and_leads_to_the_chat(model: ModelUnderTest, ada: Person, bob: Person):
    """For people who may not use the admin."""
    model.answer_with(REFUND, Reply(text="You have your money back."))
    thread = ada.ask("I want my money back.")
    ada.call(thread, "refund", "approval_requested")
    assert ada.http.get("/waiting/").status_code == 403
    assert f'<a href="/threads/{thread}/">refund 20</a>' in bob.http.get("/waiting/").text
    assert f'thread-id="{thread}"' in bob.http.get(f"/threads/{thread}/").text
    assert ada.post(f"threads/{thread}/stop/").status_code == 200
    assert thread not in bob.http.get("/waiting/").text
