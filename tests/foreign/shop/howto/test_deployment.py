"""docs/howto/deployment.md: the checks, the doctor, and a deploy."""

import json
import threading

from tests.foreign.shop.site import Person, Process, Shop, text_of, until
from tests.servers.model import Hold, ModelUnderTest, Reply


def test_the_checks_have_nothing_to_say_of_agents(shop: Shop):
    said = shop.manage("check", "--deploy")
    expected = set() if "SHOP_REDIS_URL" in shop.env else {"W004"}  # text without Redis is polled, which is allowed
    assert {check for check in ("E0", "W0") if f"durable_agents.{check}" in said} <= {"W0"}
    assert said.count("durable_agents.W") == len(expected), said


def test_the_doctor_finds_the_shop_in_good_health(shop: Shop, workers: Process, site: str):
    found = json.loads(shop.manage("agents_doctor", "--json", OPENAI_API_KEY="none"))
    errors = [finding for finding in found["findings"] if finding["level"] == "error"]
    assert errors == []
    areas = {finding["area"] for finding in found["findings"]}
    assert {"database", "broker", "workers", "sweep"} <= areas


def test_an_answer_survives_a_deploy_of_the_workers(model: ModelUnderTest, ada: Person, workers: Process):
    gate = threading.Event()
    answer = Reply(text="This is a rather long story about a shop that sold cups.")
    model.answer_with(Hold(reply=answer, after=3, gate=gate))
    thread = ada.ask("Tell me a story.")
    until(lambda: model.requests, workers.said)
    stopping = threading.Thread(target=workers.stop)
    stopping.start()
    gate.set()
    stopping.join()
    workers.start()
    assert ada.answer(thread) == answer.text
    assert [text_of(message) for message in ada.messages(thread)] == ["Tell me a story.", answer.text]
