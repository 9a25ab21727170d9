"""docs/howto/fallback-models.md: which model answers when one does not (item 4)."""

from tests.foreign.shop.site import Person
from tests.servers.model import ModelUnderTest, Reply, Status

BUSY = Status(status=429, message="Slow down.")


def test_one_refusal_stays_with_the_model(model: ModelUnderTest, ada: Person):
    model.answer_with(BUSY, Reply(text="Here I am."))
    assert ada.answer(ada.ask("Hello?")) == "Here I am."
    assert [request["model"] for request in model.requests] == ["shop-large", "shop-large"]


def test_the_next_model_answers_after_all_attempts_of_the_first(model: ModelUnderTest, ada: Person):
    model.answer_with(BUSY, BUSY, Reply(text="I step in."))
    thread = ada.ask("Hello?")
    assert ada.answer(thread) == "I step in."
    assert [request["model"] for request in model.requests] == ["shop-large", "shop-large", "shop-small"]
    attempts = ada.get(f"threads/{thread}/usage/").json()["attempts"]
    assert [one["error_code"] for one in attempts] == ["rate_limited", "rate_limited", ""]


def test_a_refused_key_leads_to_the_next_model_at_once(model: ModelUnderTest, ada: Person):
    model.answer_with(Status(status=401, message="No such key."), Reply(text="I step in."))
    assert ada.answer(ada.ask("Hello?")) == "I step in."
    assert [request["model"] for request in model.requests] == ["shop-large", "shop-small"]


def test_each_model_call_begins_with_the_first_model_again(model: ModelUnderTest, ada: Person):
    model.answer_with(BUSY, BUSY, Reply(text="I step in."), Reply(text="I am back."))
    thread = ada.ask("Hello?")
    ada.answer(thread)
    ada.send(thread, "And now?")
    assert ada.answer(thread) == "I am back."
    assert model.requests[-1]["model"] == "shop-large"


def test_a_run_fails_with_the_last_error_when_no_model_answers(model: ModelUnderTest, ada: Person):
    model.answer_with(BUSY)
    thread = ada.ask("Hello?")
    found = ada.wait(thread)
    assert (found["status"], found["error"]["code"]) == ("failed", "rate_limited")
    assert len(model.requests) == 4
    model.answer_with(Reply(text="Back again."))
    assert ada.post(f"threads/{thread}/resume/").status_code == 200
    assert ada.answer(thread) == "Back again."
