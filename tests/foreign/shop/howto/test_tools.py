"""docs/howto/tools.md: every kind of tool, and tools from schemas."""

import json
import threading

import httpx

from tests.foreign.shop.carrier import Carrier
from tests.foreign.shop.site import Person, Process, Shop, text_of, until, warehouse_says
from tests.servers.model import Call, Hold, ModelUnderTest, Reply


def calling(name: str, **arguments: object) -> Reply:
    """Return an answer of the model with one call."""
    return Reply(calls=(Call(name=name, arguments=arguments),))


def test_a_tool_sees_the_rows_of_its_sender_and_explains_what_it_did_not_find(model: ModelUnderTest, ada: Person):
    model.answer_with(calling("find_order", number=7), calling("find_order", number=9), Reply(text="Order 7 is open."))
    thread = ada.ask("Where are orders 7 and 9?")
    assert ada.answer(thread) == "Order 7 is open."
    results = [message["content"] for message in model.requests[-1]["messages"] if message["role"] == "tool"]
    assert json.loads(results[0]) == {"number": 7, "status": "open", "total": "20.00"}
    assert "There is no order 9." in results[1]


def test_arguments_of_the_wrong_type_go_back_to_the_model(model: ModelUnderTest, ada: Person):
    model.answer_with(calling("find_order", number="seven"), calling("find_order", number=7), Reply(text="Found."))
    assert ada.answer(ada.ask("Where is order seven?")) == "Found."
    assert "number" in str(model.requests[1]["messages"][-1])


def test_an_async_tool_tries_again_with_the_same_key(model: ModelUnderTest, ada: Person, carrier: Carrier):
    carrier.failures = 2
    model.answer_with(calling("track_parcel", number=7), Reply(text="It is in Bremen."))
    thread = ada.ask("Where is my parcel?")
    assert ada.answer(thread) == "It is in Bremen."
    assert len(carrier.keys) == 3
    assert len(set(carrier.keys)) == 1
    assert ada.call(thread, "track_parcel", "completed")["result"] == "in Bremen"


def test_an_atomic_tool_has_run_once_after_the_workers_were_killed(
    shop: Shop, model: ModelUnderTest, ada: Person, workers: Process
):
    gate = threading.Event()
    last = Reply(text="I have noted that she should be called back tomorrow.")
    model.answer_with(calling("add_note", number=7, text="Call her."), Hold(reply=last, after=3, gate=gate))
    thread = ada.ask("Note that I want to be called.")
    until(lambda: len(model.requests) == 2, workers.said)
    workers.kill()
    gate.set()
    workers.start()
    assert ada.answer(thread) == last.text
    assert [text_of(message) for message in ada.messages(thread)][1:] == [last.text]
    count = "from shop.models import Note\nvalue = Note.objects.filter(text='Call her.').count()"
    assert shop.value(count) == 1


def test_a_webhook_delivers_a_deferred_result(shop: Shop, model: ModelUnderTest, site: str, ada: Person):
    model.answer_with(calling("ask_the_warehouse", sku="cup"), Reply(text="There are three cups."))
    thread = ada.ask("How many cups are there?")
    ada.wait(thread, "awaiting_tool_results")
    find = f"from shop.models import Inquiry\nvalue = Inquiry.objects.get(thread='{thread}').pk"
    inquiry = shop.value(find)
    body = {"inquiry": inquiry, "in_stock": 3}
    assert httpx.post(f"{site}/webhooks/warehouse/", json=body).status_code == 403
    assert warehouse_says(site, body, secret="guessed").status_code == 403
    for _ in range(2):  # services repeat a webhook; the same result changes nothing
        delivered = warehouse_says(site, body)
        assert delivered.status_code == 204, delivered.text
    assert warehouse_says(site, {"inquiry": inquiry, "in_stock": 4}).status_code == 409
    assert ada.answer(thread) == "There are three cups."
    assert ada.call(thread, "ask_the_warehouse", "completed")["result"] == {"in_stock": 3}


def test_nobody_posts_the_result_of_a_deferred_tool_over_rest(model: ModelUnderTest, ada: Person):
    model.answer_with(calling("ask_the_warehouse", sku="cup"))
    thread = ada.ask("How many cups are there?")
    call = ada.call(thread, "ask_the_warehouse", "pending")
    ada.wait(thread, "awaiting_tool_results")
    refused = ada.post(f"threads/{thread}/tool-calls/{call['tool_call_id']}/result/", {"result": {"in_stock": 1000}})
    assert refused.status_code == 403
    assert ada.post(f"threads/{thread}/stop/").status_code == 200


def test_a_browser_has_the_result_of_a_client_tool(model: ModelUnderTest, ada: Person, bob: Person):
    model.answer_with(calling("pick_a_date", label="When?"), Reply(text="See you on Sunday."))
    thread = ada.ask("Make an appointment.")
    call = ada.call(thread, "pick_a_date", "pending")
    path = f"threads/{thread}/tool-calls/{call['tool_call_id']}/result/"
    assert bob.post(path, {"result": "2026-12-25"}).status_code == 403  # the question was to the owner
    assert ada.post(path, {"result": "2026-12-06"}).status_code == 200
    assert ada.answer(thread) == "See you on Sunday."


def test_a_suppliers_tool_comes_with_its_schema_and_may_go_again(
    shop: Shop, model: ModelUnderTest, ada: Person, eve: Person
):
    """Item 6: the rows are those of one organisation; the other one has no such tool."""
    schema = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
    shop.shell(
        "from people.models import Organisation\nfrom shop.models import SupplierTool\n"
        "SupplierTool.objects.create(name='price_of', description='Find a price.', reply={'price': 4}, "
        f"organisation=Organisation.objects.get(name='Acme'), input_schema={schema!r})"
    )
    model.answer_with(calling("price_of"), calling("price_of", sku="cup"), Reply(text="Four euros."))
    thread = ada.ask("What is the price of a cup?")
    assert ada.answer(thread) == "Four euros."
    offered = {one["function"]["name"]: one["function"] for one in model.requests[0]["tools"]}
    assert offered["price_of"]["parameters"]["properties"] == schema["properties"]
    assert "sku" in str(model.requests[1]["messages"][-1])
    assert ada.call(thread, "price_of", "completed")["result"] == {
        "supplier": "price_of",
        "arguments": {"sku": "cup"},
        "price": 4,
    }
    model.answer_with(calling("price_of", sku="cup"), Reply(text="I do not know."))
    assert eve.answer(eve.ask("What is the price of a cup?")) == "I do not know."
    shop.shell("from shop.models import SupplierTool\nSupplierTool.objects.all().delete()")
    model.answer_with(calling("price_of", sku="cup"), Reply(text="Nobody knows any more."))
    ada.send(thread, "And now?")
    assert ada.answer(thread) == "Nobody knows any more."
