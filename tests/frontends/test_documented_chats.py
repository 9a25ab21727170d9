"""Each chat of the documentation, copied into a new project as it is written, answers in a real browser."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.browser.visits import Visit, sign_in
from tests.frontends.bundle import add_desk, bundle, missing
from tests.frontends.site import STORY, USER, made, served
from tests.frontends.snippets import CHATS

pytestmark = pytest.mark.browser

PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def site(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of the new project, with what Vite has built among its static files."""
    if problem := missing():
        pytest.skip(problem)
    folder: Path = tmp_path_factory.mktemp("frontends")
    with ThreadPoolExecutor() as pool:
        built = pool.submit(bundle, folder, folder / "static" / "built")
        project = made(folder)
        said = built.result()
    said += add_desk(project, folder / "app")
    assert "warning" not in said.lower(), said
    project.paste("mysite/settings.py", f"\nSTATICFILES_DIRS = [{str(folder / 'static')!r}]\n")
    with served(project) as url:
        yield url


@pytest.fixture(scope="module")
def session(chromium: Any, site: str) -> Any:
    """Return the cookies of a signed-in user."""
    context = chromium.new_context(base_url=site)
    sign_in(context, USER, at="/admin/login/")
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def page(chromium: Any, site: str, session: Any) -> Iterator[Any]:
    """Return a page of a signed-in user. The test fails where anything is thrown or the console has an error."""
    visit = Visit(chromium, site)
    yield visit.open("about:blank", user=None, storage_state=session)
    visit.close()
    visit.forgive(r"413 .*/agents/chat\?")  # a test sends a message that is too long
    visit.forgive(r"404 .*/agents/threads/nobodys/")  # a test opens a chat that is not there
    visit.forgive(r"ERR_INTERNET_DISCONNECTED")  # a test takes the page offline
    visit.forgive(r"404 .*/favicon\.ico")  # a new project has none
    assert visit.complaints == []


def expect_said(page: Any, words: str) -> None:
    """Wait until the page shows these words."""
    from playwright.sync_api import expect

    expect(page.get_by_text(words).first).to_be_visible(timeout=PATIENCE_MS)


@pytest.mark.parametrize("chat", CHATS)
def test_a_copied_chat_sends_a_message_and_shows_the_answer(page: Any, chat: str):
    """Without an error in the console."""
    page.goto(f"/try/{chat}/")
    page.get_by_role("textbox").fill(f"I try the {chat}.")
    page.get_by_role("textbox").press("Enter")
    expect_said(page, f"Heard: I try the {chat}.")
    if chat in {"use-chat", "assistant-ui"}:  # their id is in the address
        page.reload()
        expect_said(page, f"Heard: I try the {chat}.")


def test_the_complete_page_answers_after_an_approval(page: Any):
    """Before and after the page is opened again."""
    page.goto("/try/complete/")
    for number in (1, 2):
        page.get_by_role("textbox").fill(f"Roll three dice, {number}.")
        page.get_by_role("textbox").press("Enter")
        expect_said(page, f"Roll three dice, {number}.")
        expect_said(page, 'roll_dice {"count":3}')
        if number == 2:
            page.get_by_role("button", name="approve").wait_for(timeout=PATIENCE_MS)
            page.reload()
        page.get_by_role("button", name="approve").click(timeout=PATIENCE_MS)
        page.get_by_text("Heard: [").nth(number - 1).wait_for(timeout=PATIENCE_MS)
        page.reload()
        page.get_by_text("Heard: [").nth(number - 1).wait_for(timeout=PATIENCE_MS)


def test_the_complete_page_reads_on_after_a_reload_in_the_first_answer(page: Any):
    """Its thread is in the list before the answer is complete."""
    from playwright.sync_api import expect

    page.goto("/try/complete/")
    page.get_by_role("textbox").fill("A story.")
    page.get_by_role("textbox").press("Enter")
    expect_said(page, "word-3")
    expect(page.locator("nav button[aria-current=true]")).to_have_count(1)
    assert page.get_by_text("word-79").count() == 0
    page.reload()
    expect(page.locator("p").last).to_have_text(f"assistant: {STORY}", timeout=PATIENCE_MS)
    expect(page.locator("p").first).to_have_text("user: A story.")


def test_the_complete_page_shows_no_old_error_after_a_retry(page: Any):
    """Neither during the new answer nor between its end and the load."""
    page.goto("/try/complete/")
    page.get_by_role("textbox").fill("Please fail.")
    page.get_by_role("textbox").press("Enter")
    page.get_by_role("button", name="Retry").wait_for(timeout=PATIENCE_MS)
    page.evaluate(
        """() => {
            const isShown = () => [...document.querySelectorAll("button, [role=alert]")].some(
                (element) => element.textContent === "Retry" || element.role === "alert");
            window.seen = [];
            new MutationObserver(() => seen.at(-1) !== isShown() && seen.push(isShown()))
                .observe(document.body, {subtree: true, childList: true, characterData: true});
        }"""
    )
    page.get_by_role("button", name="Retry").click()
    expect_said(page, "Heard: Please fail.")
    page.get_by_role("button", name="Stop").wait_for(state="detached", timeout=PATIENCE_MS)
    page.wait_for_timeout(500)
    assert page.evaluate("seen.filter((isShown, index) => isShown && seen[index - 1] === false)") == []
    assert page.evaluate("seen.at(-1)") is False


def test_the_page_of_an_app_answers(page: Any):
    """It is built, rendered and served as the how-to says."""
    page.goto("/desk/")
    page.get_by_role("textbox").fill("I try the desk.")
    page.get_by_role("textbox").press("Enter")
    expect_said(page, "Heard: I try the desk.")


def test_the_complete_page_shows_several_threads(page: Any):
    """Each with its own messages."""
    from playwright.sync_api import expect

    page.goto("/try/complete/")
    for text in ("One.", "Two."):
        page.get_by_role("button", name="New chat").click()
        page.get_by_role("textbox").fill(text)
        page.get_by_role("textbox").press("Enter")
        expect_said(page, f"Heard: {text}")
    _, newest, before = (page.locator("nav button").nth(number) for number in range(3))
    expect(newest).to_have_attribute("aria-current", "true", timeout=PATIENCE_MS)
    before.click()
    expect_said(page, "Heard: One.")
    assert page.get_by_text("Heard: Two.").count() == 0


def test_the_complete_page_has_the_threads_own_id_in_its_address(page: Any):
    """As another user needs it, who has not given the ``client_id``."""
    page.goto("/try/complete/")
    page.get_by_role("textbox").fill("Whose id?")
    page.get_by_role("textbox").press("Enter")
    expect_said(page, "Heard: Whose id?")
    newest = page.evaluate("async () => (await (await fetch('/agents/threads/')).json()).results[0]")
    assert newest["client_id"] != newest["id"]
    page.wait_for_url(f"**#{newest['id']}", timeout=PATIENCE_MS)


def test_the_complete_page_shows_no_form_for_a_chat_that_is_not_there(page: Any):
    """A message would begin another chat with this id."""
    from playwright.sync_api import expect

    page.goto("/try/complete/#nobodys")
    expect(page.get_by_role("alert")).to_have_text("This chat cannot be shown.", timeout=PATIENCE_MS)
    expect(page.get_by_role("textbox")).to_have_count(0)
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_role("textbox")).to_be_visible()


def test_the_complete_page_keeps_its_list_without_a_connection(page: Any):
    """A list that cannot be loaded throws nothing."""
    from playwright.sync_api import expect

    page.goto("/try/complete/")
    page.get_by_role("textbox").fill("Lost list.")
    page.get_by_role("textbox").press("Enter")
    expect_said(page, "Heard: Lost list.")
    chosen = page.locator("nav button[aria-current=true]")
    expect(chosen).to_have_count(1)
    page.route("**/agents/threads/", lambda route: route.abort("internetdisconnected"))
    with page.expect_event("requestfailed"):
        page.get_by_role("textbox").fill("And again.")
        page.get_by_role("textbox").press("Enter")
    expect_said(page, "Heard: And again.")
    expect(chosen).to_have_count(1)


def test_the_complete_page_keeps_the_text_of_a_refused_message(page: Any):
    """The form has it again, and the page says why."""
    from playwright.sync_api import expect

    page.goto("/try/complete/")
    page.get_by_role("textbox").fill("x" * 40_000)
    page.get_by_role("textbox").press("Enter")
    expect(page.get_by_role("alert")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_role("textbox")).to_have_value("x" * 40_000)
    assert page.get_by_text("user:").count() == 0


def test_the_page_of_the_quickstart_answers(page: Any):
    """As it is written there."""
    page.goto("/")
    page.get_by_role("textbox").fill("I follow the quickstart.")
    page.get_by_role("textbox").press("Enter")
    expect_said(page, "Heard: I follow the quickstart.")
