"""The documented chat with `useChat` works as it is written, on the demo as it stands."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.aisdk.playing import MAJORS, ROOT
from tests.aisdk.stage import Stage
from tests.browser.visits import sign_in
from tests.frontends.snippets import CHAT_MAIN, USE_CHAT

pytestmark = pytest.mark.browser

PAGES = [ROOT / "README.md", ROOT / "docs" / "howto" / "frontend.md"]
SHELL = re.compile(r"^```sh\n(npm ci && .*?)^```$", re.DOTALL | re.MULTILINE)
FOLDER = "demo_project/static/mine"
OLDER = {"7": "", "6": " --alias:ai=ai6 --alias:@ai-sdk/react=ai6-react"}
STORY = " ".join(f"word-{number}" for number in range(40))
AGAIN = STORY.replace("word", "again")
PATIENCE_MS = 60_000


def documented(pattern: re.Pattern[str]) -> set[str]:
    """Return what the pages have of this; each has it, or they would not be listed."""
    return {block for page in PAGES for block in pattern.findall(page.read_text(encoding="utf-8"))}


@pytest.fixture(scope="module", params=MAJORS)
def built(request: pytest.FixtureRequest, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built app: the page's files and the page's command, elsewhere than in this checkout."""
    [command] = documented(SHELL)
    folder = tmp_path_factory.mktemp("app")
    for name, text in {"chat.jsx": USE_CHAT, "main.jsx": CHAT_MAIN}.items():
        assert all(text in page.read_text(encoding="utf-8") for page in PAGES)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "node_modules").symlink_to(ROOT / "node_modules")
    build = command.removeprefix("npm ci && ").replace(" --bundle", f" --bundle{OLDER[request.param]}")
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", build],
        cwd=folder,
        env=os.environ | {"PATH": f"{ROOT / 'node_modules' / '.bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return folder / FOLDER


@pytest.fixture
def page(chromium: Any, stage: Stage, built: Path) -> Iterator[Any]:
    """Return a page of a signed-in user where the demo has the built files among its static files."""
    context = chromium.new_context(base_url=stage.demo.url)
    sign_in(context, "demo")
    context.route("**/static/mine/*", lambda route: route.fulfill(path=built / route.request.url.rpartition("/")[2]))
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto("/static/mine/chat.html")
    yield page
    context.close()
    assert errors == []


def test_a_message_is_answered_and_a_reload_in_the_middle_reads_on(page: Any, stage: Stage):
    """The answer is there once, whole, and after one more reload as well."""
    from playwright.sync_api import expect

    stage.script("case-page", [{"text": STORY, "hold": 20}])
    page.locator("input").fill("[case-page] A story, please.")
    page.locator("input").press("Enter")
    answer = page.locator("p", has_text="assistant:")
    expect(answer).to_contain_text("word-5", timeout=PATIENCE_MS)
    page.reload()
    expect(answer).to_contain_text("word-5", timeout=PATIENCE_MS)
    stage.go_on("case-page")
    expect(answer).to_have_text(f"assistant: {STORY}", timeout=PATIENCE_MS)
    page.reload()
    expect(page.locator("p")).to_have_text(["user: [case-page] A story, please.", f"assistant: {STORY}"])
    assert len(stage.requests("case-page")) == 1


def test_a_new_chat_asks_for_nothing_that_does_not_exist(page: Any, stage: Stage):
    """Neither at first nor after a reload; its address is that of the thread from the first message on."""
    missing: list[str] = []
    page.on("response", lambda response: missing.append(response.url) if response.status == 404 else None)
    page.reload()
    page.reload()
    page.locator("input").wait_for()
    stage.script("case-new", [{"text": "Hello."}])
    page.locator("input").fill("[case-new] Hi.")
    page.locator("input").press("Enter")
    page.locator("p", has_text="assistant: Hello.").wait_for(timeout=PATIENCE_MS)
    page.reload()
    page.locator("p", has_text="assistant: Hello.").wait_for(timeout=PATIENCE_MS)
    assert [url for url in missing if not url.endswith("/favicon.ico")] == []


def test_the_conversation_goes_on(page: Any, stage: Stage):
    """The second question has the first answer before it."""
    from playwright.sync_api import expect

    stage.script("case-talk", [{"text": "First."}, {"text": "Second."}])
    for said, heard in (("One.", "assistant: First."), ("Two.", "assistant: Second.")):
        expect(page.locator("input")).to_have_value("")
        page.locator("input").fill(f"[case-talk] {said}")
        page.locator("input").press("Enter")
        expect(page.locator("p").last).to_have_text(heard, timeout=PATIENCE_MS)
    roles = [message["role"] for message in stage.requests("case-talk")[1]["messages"]]
    assert roles[-3:] == ["user", "assistant", "user"]


def test_a_killed_worker_is_made_good_without_a_reload(page: Any, stage: Stage):
    """What was told before is gone, and what is told again stands once. A client of version 6 reads it again, for which
    it has time: an answer that is complete by then cannot be resumed.
    """
    from playwright.sync_api import expect

    stage.script("case-kill", [{"text": STORY, "hold": 20}, {"text": AGAIN, "hold": 20}])
    page.locator("input").fill("[case-kill] A story, please.")
    page.locator("input").press("Enter")
    answer = page.locator("p", has_text="assistant:")
    expect(answer).to_contain_text("word-5", timeout=PATIENCE_MS)
    stage.kill_worker("case-kill")
    expect(answer).to_contain_text("again-5", timeout=PATIENCE_MS)
    stage.go_on("case-kill")
    expect(answer).to_have_text(f"assistant: {AGAIN}", timeout=PATIENCE_MS)


def test_a_run_that_fails_is_an_error_and_no_endless_loop(page: Any, stage: Stage):
    """The next message is answered."""
    from playwright.sync_api import expect

    stage.script("case-fail", [{"status": 400}, {"text": "Here I am."}])
    asked: list[str] = []
    page.on("request", lambda request: asked.append(f"{request.method} {request.url}"))
    page.locator("input").fill("[case-fail] One.")
    page.locator("input").press("Enter")
    expect(page.locator("p").last).to_have_text("assistant:", timeout=PATIENCE_MS)
    page.wait_for_timeout(1500)
    # The page may be asking for its messages and for a run to resume when the test begins.
    assert len([request for request in asked if request.startswith("POST")]) == 1, asked
    assert len(asked) <= 3, asked
    page.locator("input").fill("[case-fail] Two.")
    page.locator("input").press("Enter")
    expect(page.locator("p").last).to_have_text("assistant: Here I am.", timeout=PATIENCE_MS)
