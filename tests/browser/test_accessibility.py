"""Readers with a keyboard, a zoomed page, forced colours, less motion, or a script that runs from right to left."""

import re
from time import time_ns
from typing import Any

import pytest

from tests.architecture.sources import ROOT
from tests.browser.chat_page import LONG_STORY, PATIENCE_MS, ChatPage
from tests.browser.visits import FINGER_PX, PHONE, Visit

pytestmark = pytest.mark.browser

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
BOOK = "Book a table for four at Luigi's at 19:30"
MAX_TABS = 300
"""More than a page has stops: each chat in the list has two."""
ZOOMED = {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2}
"""A window of 1280 by 800 pixels at 200 %."""

DEEPLY_FOCUSED = """() => {
    let found = document.activeElement;
    while (found?.shadowRoot?.activeElement) found = found.shadowRoot.activeElement;
    return found;
}"""
HAS_OUTLINE = """(node) =>
    [node, node.closest(".bar")].some((one) => one && getComputedStyle(one).outlineStyle !== "none")"""
EVERYWHERE = """
const within = (one) => [one, ...(one.shadowRoot ? all(one.shadowRoot) : [])];
const all = (root) => [...root.querySelectorAll("*")].flatMap(within);
const parent = (one) => one.assignedSlot ?? one.parentElement ?? one.getRootNode().host;
const style = (one) => getComputedStyle(one);
const hasBar = (one) => /auto|scroll/.test(style(one).overflowX);
const scrolls = (one) => one && one !== document.body && (hasBar(one) || scrolls(parent(one)));
const name = (one) => `${one.localName}.${one.className} ${one.textContent.trim().slice(0, 30)}`;
"""
"""Functions that look into shadow roots, too."""

CUT = f"""() => {{
    {EVERYWHERE}
    const options = {{opacityProperty: true, visibilityProperty: true}};
    const seen = all(document).filter((one) => one.checkVisibility(options) && !one.matches(".unseen, .skip"));
    return seen.filter((one) => {{
        const {{left, right, width}} = one.getBoundingClientRect();
        const isOutside = width > 0 && (left < -0.5 || right > innerWidth + 0.5) && !scrolls(parent(one));
        const isClipped = /hidden|clip/.test(style(one).overflowX) && style(one).textOverflow !== "ellipsis";
        return isOutside || (isClipped && one.scrollWidth > one.clientWidth + 1);
    }}).map(name);
}}"""
RUNNING_ANIMATIONS = f"""() => {{
    {EVERYWHERE}
    const found = all(document).flatMap((one) => one.getAnimations({{subtree: true}}));
    return found.filter(({{playState}}) => playState === "running").length;
}}"""
MARKED = "button, input:not([type=hidden], [type=file]), [data-role=user] .parts, .threads [aria-current], .card, .bar"
WITHOUT_BORDER = f"""() => {{
    {EVERYWHERE}
    const isBare = (one) => style(one).borderTopStyle === "none" || !parseFloat(style(one).borderTopWidth);
    return all(document).filter((one) => one.matches("{MARKED}") && one.checkVisibility() && isBare(one)).map(name);
}}"""


class Keys:
    """A reader without a mouse. Every element that gets the focus has to show it."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def write(self, text: str) -> None:
        """Type a text."""
        self.page.keyboard.type(text)

    def go_to(self, target: Any, key: str = "Tab") -> None:
        """Press Tab or Shift+Tab until this element has the focus."""
        target.wait_for(timeout=PATIENCE_MS)
        for _ in range(MAX_TABS):
            self.press(key)
            focused = self.page.evaluate_handle(DEEPLY_FOCUSED)
            if target.evaluate("(node, focused) => node === focused", focused):
                assert focused.evaluate(HAS_OUTLINE), target
                return
        raise AssertionError(f"{target} cannot be reached by {key}.")


def with_question(visit: Visit, **options: Any) -> ChatPage:
    """Open a chat in which a call waits for an approval, on a page with these options."""
    chat = ChatPage(visit.open())
    chat.ask(BOOK)
    chat.page.locator("[part=approval]").wait_for(timeout=PATIENCE_MS)
    state = chat.page.context.storage_state()
    path = f"/?thread={chat.thread_id()}"
    chat.page.close()
    return ChatPage(visit.open(path, user=None, storage_state=state, **options))


# By keyboard alone.


def test_the_skip_link_leads_past_the_list(visit: Visit) -> None:
    """It is the first stop of the page, after the message field, which is the last."""
    chat = ChatPage(visit.open())
    keys = Keys(chat.page)
    chat.expect(chat.prompt).to_be_focused()
    keys.go_to(chat.page.get_by_role("link", name="Skip to the conversation"))
    keys.press("Enter")
    chat.expect(chat.page.locator("#main")).to_be_focused()


def test_an_answer_is_stopped_and_continued_by_keyboard(visit: Visit) -> None:
    """By button and by Escape. The conversation gets the focus when the button that had it is gone."""
    chat = ChatPage(visit.open())
    keys = Keys(chat.page)
    chat.expect(chat.prompt).to_be_focused()
    keys.write(LONG_STORY)
    keys.press("Enter")
    chat.wait_for_words("On day")
    chat.expect(chat.prompt).to_be_focused()
    keys.go_to(chat.stop)
    keys.press("Enter")
    chat.expect(chat.notice).to_contain_text("You stopped this answer.", timeout=PATIENCE_MS)
    chat.wait_for_rest()
    chat.expect(chat.log).to_be_focused()
    keys.go_to(chat.answer.get_by_role("button", name="Copy"))
    keys.go_to(chat.notice.get_by_role("button", name="Continue"))
    keys.press("Space")
    chat.expect(chat.stop).to_be_visible(timeout=PATIENCE_MS)
    chat.expect(chat.log).to_be_focused()
    keys.press("Escape")
    chat.expect(chat.notice).to_be_visible(timeout=PATIENCE_MS)
    chat.wait_for_rest()


def test_a_message_is_edited_and_answered_again_by_keyboard(visit: Visit) -> None:
    """The message field gets the focus after the editing, and the conversation when an answer is replaced."""
    chat = ChatPage(visit.open())
    keys, mine = Keys(chat.page), chat.messages.first
    chat.expect(chat.prompt).to_be_focused()
    keys.write("Add 3 and 4")
    keys.press("Enter")
    chat.wait_for_words("3 and 4 make 7")
    chat.wait_for_rest()
    keys.go_to(mine.get_by_role("button", name="Edit"), "Shift+Tab")
    keys.press("Enter")
    chat.expect(mine.get_by_role("textbox", name="Edit")).to_be_focused()
    keys.go_to(mine.get_by_role("button", name="Cancel"))
    keys.press("Space")
    chat.expect(chat.prompt).to_be_focused()
    keys.press("ArrowUp")
    chat.expect(mine.get_by_role("textbox", name="Edit")).to_be_focused()
    keys.press("Control+a")
    keys.write("Add 1 and 2")
    keys.go_to(mine.get_by_role("button", name="Save and send"))
    keys.press("Enter")
    chat.wait_for_words("1 and 2 make 3")
    chat.wait_for_rest()
    chat.expect(chat.prompt).to_be_focused()
    keys.go_to(chat.answer.get_by_role("button", name="Answer again"), "Shift+Tab")
    answer = chat.answer.evaluate_handle("node => node")
    keys.press("Enter")
    chat.page.wait_for_function("node => !node.isConnected", arg=answer, timeout=PATIENCE_MS)
    chat.wait_for_words("1 and 2 make 3")
    chat.wait_for_rest()
    chat.expect(chat.log).to_be_focused()


def test_a_question_is_read_and_answered_by_keyboard(visit: Visit) -> None:
    """The form takes the focus from an empty message field; afterwards, its card has it, and can be opened and read."""
    chat = ChatPage(visit.open())
    keys = Keys(chat.page)
    chat.expect(chat.prompt).to_be_focused()
    keys.write(BOOK)
    keys.press("Enter")
    form = chat.page.locator("[part=approval]")
    chat.expect(form).to_be_focused(timeout=PATIENCE_MS)
    keys.go_to(form.get_by_label("Arguments"))
    keys.go_to(form.get_by_label("Note to the assistant"))
    keys.write("Fine.")
    keys.go_to(form.get_by_role("button", name="Approve"))
    keys.press("Enter")
    chat.wait_for_words("Your table is booked")
    chat.wait_for_rest()
    chat.expect(chat.tools.locator("summary")).to_be_focused()
    keys.press("Enter")
    keys.go_to(chat.tools.locator("[part=tool-input]"))
    keys.go_to(chat.tools.locator("[part=tool-output]"))


def test_a_long_conversation_is_scrolled_by_keyboard(visit: Visit) -> None:
    """While the answer is written, too. One line back is enough to stay there; a button leads to the end."""
    chat = ChatPage(visit.open(viewport={"width": 900, "height": 420}))
    keys = Keys(chat.page)
    chat.expect(chat.prompt).to_be_focused()
    keys.write(LONG_STORY)
    keys.press("Enter")
    chat.wait_for_words("On day 8")
    keys.go_to(chat.log, "Shift+Tab")
    while not chat.jump.is_visible():
        keys.press("PageUp")
    keys.press("Home")
    chat.page.wait_for_function("log => log.scrollTop === 0", arg=chat.log.element_handle())
    keys.go_to(chat.jump)
    keys.press("Enter")
    chat.expect(chat.jump).to_be_hidden()
    chat.expect(chat.log).to_be_focused()
    keys.press("Escape")
    chat.wait_for_rest()
    assert chat.scrolled_to() < 2
    keys.press("ArrowUp")
    chat.expect(chat.jump).to_be_visible()


def test_chats_are_found_renamed_opened_and_archived_by_keyboard(visit: Visit) -> None:
    """The menu of a chat opens below it. When a chat leaves the list, the next one gets the focus, or the search."""
    chat = ChatPage(visit.open())
    keys, rows = Keys(chat.page), chat.page.locator(".threads li")
    words = f"Add {time_ns()} and"
    for number in (1, 2):
        chat.ask(f"{words} {number}")
        chat.wait_for_rest()
        chat.page.get_by_role("button", name="New chat").click()
        chat.expect(chat.prompt).to_be_focused()
    search = chat.page.get_by_role("searchbox", name="Search chats")
    keys.go_to(search, "Shift+Tab")
    keys.write(words)
    chat.expect(rows).to_have_count(2, timeout=PATIENCE_MS)
    keys.go_to(rows.last.get_by_role("button", name=f"More actions: {words} 1"))
    keys.press("Enter")
    keys.go_to(rows.last.get_by_role("button", name="Rename"))
    keys.press("Enter")
    chat.expect(chat.page.get_by_role("textbox", name="Rename")).to_be_focused()
    keys.press("Control+a")
    keys.write(f"{words} one")
    keys.press("Enter")
    link = chat.page.get_by_role("link", name=f"{words} one")
    chat.expect(link).to_be_focused(timeout=PATIENCE_MS)
    keys.press("Enter")
    chat.expect(link).to_have_attribute("aria-current", "page")
    chat.wait_for_words("make")
    keys.go_to(search, "Shift+Tab")
    for number, focused in ((1, rows.first.get_by_role("link")), (0, search)):
        keys.go_to(rows.first.get_by_role("button", name="More actions"))
        keys.press("Enter")
        keys.go_to(rows.first.get_by_role("button", name="Archive"))
        keys.press("Enter")
        chat.expect(rows).to_have_count(number, timeout=PATIENCE_MS)
        chat.expect(focused).to_be_focused()


def test_the_examples_and_the_react_page_work_by_keyboard(visit: Visit) -> None:
    """Their fields and buttons are reached and show the focus."""
    page = visit.open("/examples/")
    keys = Keys(page)
    for chat in page.locator("durable-chat").all():
        keys.go_to(chat.locator("[part=field]"))
    page = visit.add_page(page.context, "/examples/react/")
    keys = Keys(page)
    keys.go_to(page.get_by_label("Message"))
    keys.write("Add 1 and 2")
    keys.press("Enter")
    page.get_by_text("1 and 2 make 3").last.wait_for(timeout=PATIENCE_MS)
    keys.go_to(page.get_by_role("link", name="Examples"), "Shift+Tab")


# Zoom, motion, colours, direction.


@pytest.mark.parametrize("options", [ZOOMED, PHONE], ids=["200 %", "phone"])
def test_nothing_is_cut_off_or_has_to_be_scrolled_sideways(visit: Visit, options: dict[str, Any]) -> None:
    """On the chat with a question, its drawer, the examples, the React page and the sign-in page."""
    page = with_question(visit, **options).page
    assert page.evaluate(CUT) == []
    page.locator("#open-drawer").click()
    page.get_by_role("button", name="More actions").first.click()
    page.wait_for_function("() => !document.getElementById('sidebar').getAnimations().length")
    assert page.evaluate(CUT) == []
    for path in ("/examples/", "/examples/react/", "/accounts/login/"):
        page.goto(path)
        page.wait_for_load_state("networkidle")
        assert page.evaluate(CUT) == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


@pytest.mark.parametrize(("motion", "moves"), [("reduce", False), ("no-preference", True)])
def test_nothing_moves_for_readers_who_want_less_motion(visit: Visit, motion: str, moves: bool) -> None:
    """While an answer is awaited and written. For others, something does."""
    chat = ChatPage(visit.open(reduced_motion=motion))
    chat.ask(LONG_STORY)
    counts = []
    chat.expect(chat.stop).to_be_visible(timeout=PATIENCE_MS)
    for words in ("", "On day 2", "On day 4"):
        if words:
            chat.wait_for_words(words)
        counts.append(chat.page.evaluate(RUNNING_ANIMATIONS))
    assert any(counts) is moves, counts
    chat.stop.click()
    chat.wait_for_rest()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_forced_colours_everything_has_an_edge(visit: Visit, scheme: str) -> None:
    """Backgrounds, which tell things apart otherwise, are all the same there."""
    page = with_question(visit, forced_colors="active", color_scheme=scheme).page
    page.locator(".threads [aria-current]").wait_for(timeout=PATIENCE_MS)
    assert page.evaluate("matchMedia('(forced-colors: active)').matches")
    assert page.evaluate(WITHOUT_BORDER) == []


def test_from_right_to_left_the_page_is_mirrored_and_code_is_not(visit: Visit) -> None:
    """Also on a phone, where the list is a drawer on the right."""
    chat = with_question(visit)
    chat.page.evaluate("document.documentElement.dir = 'rtl'")
    boxes = {
        name: chat.page.locator(selector).bounding_box()
        for name, selector in {
            "list": "#sidebar",
            "chat": "durable-chat",
            "mine": "[data-role=user] .parts",
            "answer": "[data-role=assistant] .tool",
            "send": "durable-chat [part=send]",
            "field": "durable-chat [part=field]",
        }.items()
    }
    assert boxes["list"]["x"] > boxes["chat"]["x"]
    assert boxes["send"]["x"] < boxes["field"]["x"]
    assert boxes["mine"]["x"] == pytest.approx(boxes["answer"]["x"], abs=1)
    code = chat.page.locator("[part=approval] textarea")
    assert code.evaluate("field => getComputedStyle(field).direction") == "ltr"
    assert chat.page.evaluate(CUT) == []
    page = visit.open(**PHONE)
    ChatPage(page)
    page.evaluate("document.documentElement.dir = 'rtl'")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#open-drawer").click()
    page.wait_for_function("() => document.getElementById('sidebar').getBoundingClientRect().right === innerWidth")


# Menus on phones.


def test_on_a_phone_a_chat_is_renamed_archived_and_deleted_by_touch(visit: Visit) -> None:
    """Each chat has a menu, also those that are not shown, and it stays open while the list changes."""
    chat = ChatPage(visit.open(**PHONE))
    for words in ("Add 3 and 4", "Add 5 and 6", "Add 7 and 9"):
        chat.ask(words)
        chat.wait_for_rest()
        chat.page.locator("#open-drawer").tap()
        chat.page.get_by_role("button", name="New chat").tap()
    chat.page.locator("#open-drawer").tap()
    row = chat.page.locator(".threads li").filter(has_text="Add 3 and 4").first
    menu = row.get_by_role("button")
    menu.first.tap()
    chat.expect(menu).to_have_count(4)
    sizes = menu.evaluate_all(
        "nodes => nodes.map(({offsetWidth, offsetHeight}) => Math.min(offsetWidth, offsetHeight))"
    )
    assert min(sizes) >= FINGER_PX
    row.get_by_role("button", name="Rename").tap()
    chat.page.locator(".threads input").fill("Seven")
    chat.page.keyboard.press("Enter")
    renamed = chat.page.get_by_role("link", name=re.compile("^Seven")).first
    chat.expect(renamed).to_be_visible(timeout=PATIENCE_MS)
    chat.page.on("dialog", lambda dialog: dialog.accept())
    for words, action in (("Add 5 and 6", "Archive"), ("Add 7 and 9", "Delete")):
        row = chat.page.locator(".threads li").filter(has_text=words)
        before = row.count()
        row.first.get_by_role("button", name="More actions").tap()
        row.first.get_by_role("button", name=action).tap()
        chat.expect(row).to_have_count(before - 1, timeout=PATIENCE_MS)


# What axe-core finds.


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/examples/", "/examples/react/"])
def test_axe_finds_nothing(visit: Visit, path: str, scheme: str) -> None:
    """On the chat with a question that waits, on the examples, and on the React page after an answer."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci")
    options = {"bypass_csp": True, "color_scheme": scheme}
    page = with_question(visit, **options).page if path == "/" else visit.open(path, **options)
    if path.endswith("react/"):
        page.get_by_label("Message").fill("Add 1 and 2")
        page.get_by_label("Message").press("Enter")
        page.get_by_text("1 and 2 make 3").last.wait_for(timeout=PATIENCE_MS)
    page.wait_for_load_state("networkidle")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    assert [(each["id"], [node["target"] for node in each["nodes"]]) for each in found] == []
    visit.forgive("TrustedScript")  # axe-core is evaluated as a text
