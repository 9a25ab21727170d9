"""docs/howto/frontend.md: the chat on a page of the shop, under its Content-Security-Policy and in German."""

import json
import re
from typing import Any

import httpx
from websockets.sync.client import connect

from tests.foreign.shop.site import PASSWORD, SignIn
from tests.servers.model import Call, ModelUnderTest, Reply


def test_the_page_is_german_and_its_scripts_have_hashed_names(model: ModelUnderTest, each_site: str, sign_in: SignIn):
    page = sign_in(each_site, "ada").http.get("/")
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert "Senden" in page.text
    scripts = re.findall(r'src="([^"]+)"', page.text)
    assert scripts
    for script in scripts:
        assert re.search(r"\.[0-9a-f]{12}\.js$", script), script
        assert httpx.get(f"{each_site}{script}").status_code == 200


def test_the_api_does_not_redirect_strangers_to_the_login_page(model: ModelUnderTest, each_site: str):
    """The project has LoginRequiredMiddleware."""
    assert httpx.get(f"{each_site}/").status_code == 302
    refused = httpx.get(f"{each_site}/agents/threads/")
    assert refused.status_code in {401, 403}
    assert refused.json()["code"] == "not_authenticated"
    assert re.search("[Aa]nmelde", refused.json()["detail"]), refused.text


def errors(message: Any) -> list[str]:
    """Return what a message on the console complains of; the shop has no icon, which browsers ask for by themselves."""
    url = message.location["url"]
    return [f"{message.text} {url}"] if message.type == "error" and not url.endswith("/favicon.ico") else []


def test_a_chat_on_the_page_answers_and_breaks_no_rule_of_the_policy(
    chromium: Any, model: ModelUnderTest, each_site: str
):
    model.answer_with(
        Reply(calls=(Call(name="refund", arguments={"number": 7, "amount": "20"}),)), Reply(text="It is paid.")
    )
    complaints: list[str] = []
    context = chromium.new_context(locale="de-DE")
    page = context.new_page()
    page.on("console", lambda message: complaints.extend(errors(message)))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{each_site}/")
    page.fill("[name=username]", "bob")
    page.fill("[name=password]", PASSWORD)
    page.click("button")
    page.get_by_role("textbox").last.fill("Pay order 7 back.")
    page.get_by_role("textbox").last.press("Enter")
    page.get_by_role("button", name="Erlauben").click()
    page.get_by_role("log").get_by_text("It is paid.").wait_for()
    context.close()
    assert complaints == []


def heard(site: str, cookies: str, thread: str) -> list[Any]:
    """Send a message over the websocket; return the frames until the thread is at rest."""
    url = f"{site.replace('http', 'ws', 1)}/ws/agents/"
    protocol: Any = "durable-agents.v1"
    headers = {"Cookie": cookies, "Origin": site}
    frames: list[Any] = []
    with connect(url, subprotocols=[protocol], additional_headers=headers) as wire:
        wire.send(json.dumps({"type": "hello", "version": 1}))
        wire.send(json.dumps({"type": "subscribe", "id": "1", "thread": thread}))
        wire.send(json.dumps({"type": "send", "id": "2", "thread": thread, "key": "k-1", "prompt": "Again?"}))
        while not (frames and frames[-1].get("status") == "completed" and "Once more." in str(frames)):
            frames.append(json.loads(wire.recv(timeout=30)))
    return frames


def test_the_websocket_answers(model: ModelUnderTest, each_site: str, sign_in: SignIn):
    ada = sign_in(each_site, "ada")
    thread = ada.ask("Hello?")
    ada.answer(thread)
    model.answer_with(Reply(text="Once more."))
    cookies = "; ".join(f"{name}={value}" for name, value in ada.http.cookies.items())
    frames = heard(each_site, cookies, thread)
    assert {"snapshot", "ok", "thread"} <= {frame["type"] for frame in frames}
    assert ada.answer(thread) == "Once more."
