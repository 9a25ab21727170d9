"""A reader of German gets the demo in German: replies of the scripted model, results of tools, and their errors."""

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as project
from django.urls import reverse
from django.utils.translation import gettext, override, pgettext
from django.utils.translation.template import templatize

import demo_project
from demo_project import scripted_model
from demo_project.agents import INSTRUCTIONS, TOOLS, book_table, count_to, get_time, get_weather, instructions
from demo_project.model_server import Reply
from demo_project.models import Booking
from demo_project.scripted_model import MENU, SENTENCES, answer
from demo_project.views import PROMPTS
from durable_agents import ToolContext, ToolError
from durable_agents.models import Thread
from tests.api.calls import person

FUNCTIONS = {"_", "gettext", "gettext_lazy", "pgettext", "pgettext_lazy"}
IN_TEMPLATE = re.compile(r"""gettext\(\s*u?('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")""")
SAME = {"Chat"}
"""Words that German writes in the same way."""
WORD = re.compile(r"[^\W\d_]{2,}")
GERMAN = ToolContext.for_test(context={"language": "de"})


def texts_of(code: str) -> Iterator[tuple[str, ...]]:
    """Yield the arguments of each call of gettext in Python code: the text, or its context and the text."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in FUNCTIONS:
            yield tuple(argument.value for argument in node.args if isinstance(argument, ast.Constant))


def texts_of_the_demo() -> set[tuple[str, ...]]:
    found = {text for path in Path(demo_project.__file__).parent.rglob("*.py") for text in texts_of(path.read_text())}
    for path in (Path(project.BASE_DIR) / "templates").rglob("*.html"):
        code = templatize(path.read_text())
        found |= {(ast.literal_eval(match[1]),) for match in IN_TEMPLATE.finditer(code)}
    return found


def test_every_text_of_the_demo_has_a_translation():
    texts = texts_of_the_demo()
    assert len(texts) > 100
    with override("de"):
        missing = {text[-1] for text in texts if (pgettext(*text) if text[1:] else gettext(*text)) == text[-1]}
    assert missing <= SAME


def reply(*messages: dict, language: str) -> Reply:
    """Return the scripted reply to these messages, which a reader of this language gets."""
    system = {"role": "system", "content": instructions(Thread(context={"language": language}))}
    return answer({"messages": [system, *messages], "tools": [tool.definition for tool in TOOLS]})


def said(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def result_of(name: str, content: object, **arguments: object) -> list[dict]:
    """Return the messages that end with the result of a tool call."""
    call = {"id": "1", "function": {"name": name, "arguments": json.dumps(arguments)}}
    told = content if isinstance(content, str) else json.dumps(content)
    result = {"role": "tool", "tool_call_id": "1", "content": told}
    return [{"role": "assistant", "tool_calls": [call]}, result]


BOOKED = {"booking": 7, "restaurant": "Rossini", "people": 4, "time": "19:30"}
CONVERSATIONS = [
    *(said(text) for text in ("Hm", "Add 2 and 3", "Count to ten", "Book a table", "Ask a colleague", "Pick a date")),
    *(said(text) for text in ("Pick a date for Ulm", "Think", "Tell me a long story")),
    said('[The call of ask_colleague that was still open has its result: "Nie."]'),
    result_of("get_weather", {"city": "Ulm", "temperature_c": 3, "sky": "klar"}),
    result_of("get_time", {"tz": "Asia/Tokyo", "weekday": "Montag", "time": "2026-01-01T10:00:00"}),
    result_of("add", 2.5, a=1.25, b=1.25),
    result_of("count_to", 10),
    result_of("book_table", BOOKED),
    result_of("book_table", "Error: A person refused this call."),
    result_of("book_table", "Error: A person refused this call. Nein."),
    result_of("ask_colleague", "Nie."),
    result_of("pick_date", "2026-12-24"),
    result_of("get_time", "Error: Kaputt."),
    result_of("get_time", "Kaputt."),
]


def texts_in(one: Reply) -> str:
    """Return all that a reader sees of a reply."""
    return " ".join([one.reasoning, one.text, *(str(value) for call in one.calls for value in call.arguments.values())])


def test_the_scripted_replies_have_no_english_word():
    """A reply in both languages has only those words in common that the German texts or the messages contain."""
    with override("de"):
        german = {pgettext(*text) if text[1:] else gettext(*text) for text in texts_of_the_demo()}
    for messages in CONVERSATIONS:
        english, translated = (texts_in(reply(*messages, language=language)) for language in ("en", "de"))
        assert english != translated
        known = set(WORD.findall(" ".join([*german, str(messages), "Luigi"])))
        assert set(WORD.findall(english)) & set(WORD.findall(translated)) - known == set()


def test_the_conversations_above_contain_every_text_of_the_model():
    """Otherwise, the test above would not see a new one."""
    seen = "\n".join(texts_in(reply(*messages, language="en")) for messages in CONVERSATIONS)
    texts = [text for text in texts_of(inspect.getsource(scripted_model)) if text[0] != "format of a date"]
    patterns = {re.sub(r"\\{\w+\\}", ".+", re.escape(text[-1])) for text in texts}
    assert len(patterns) > 40
    assert {pattern for pattern in patterns if not re.search(pattern, seen)} == set()
    assert {messages[0]["tool_calls"][0]["function"]["name"] for messages in CONVERSATIONS if messages[1:]} == {
        *SENTENCES
    }


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (result_of("add", 42.0, a=2.5, b=39.5), "2,5 und 39,5 ergeben 42."),
        (result_of("pick_date", "2026-12-24"), "Sie haben Donnerstag, 24. Dezember 2026 gewählt."),
        (
            result_of("get_time", {"tz": "Asia/Tokyo", "weekday": "Montag", "time": "2026-01-01T10:00:00"}),
            "In Asia/Tokyo ist es Montag, 10:00 Uhr.",
        ),
    ],
)
def test_numbers_and_dates_are_written_as_in_german(messages, text):
    assert reply(*messages, language="de").text.startswith(text)


def phrases_of_the_menu() -> list[str]:
    return re.findall(r"\*\*(.+?)\*\*", str(MENU))


def pairs() -> list[tuple[str, str]]:
    """Return the phrases that the pages and the model suggest, in both languages."""
    english, german = ([], [])
    for language, found in (("en", english), ("de", german)):
        with override(language):
            found += [*map(str, PROMPTS), *phrases_of_the_menu()]
    return list(zip(english, german, strict=True))


@pytest.mark.parametrize(("english", "german"), pairs())
def test_a_german_phrase_is_understood_like_the_english_one(english, german):
    """Only what is quoted from it is German."""
    first, second = reply(*said(english), language="de"), reply(*said(german), language="de")
    assert german != english
    assert second.text == first.text
    assert [call.name for call in second.calls] == [call.name for call in first.calls]
    for ours, theirs in zip(second.calls, first.calls, strict=True):
        assert ours.arguments == theirs.arguments or ours.name in {"ask_colleague", "pick_date"}


@pytest.mark.parametrize(
    ("prompt", "name", "arguments"),
    [
        ("Wie ist das Wetter in Ulm?", "get_weather", {"city": "Ulm"}),
        ("Wie spät ist es in Tokyo jetzt?", "get_time", {"tz": "Asia/Tokyo"}),
        ("Wie spät ist es in Wien?", "get_time", {"tz": "Europe/Vienna"}),
        (
            "Buche bitte einen Tisch im Fuchs um 20:15 für zwei",
            "book_table",
            {"restaurant": "Fuchs", "people": 2, "time": "20:15"},
        ),
        (
            "Frag einen Kollegen: Liefern wir am Montag und Dienstag?",
            "ask_colleague",
            {"question": "Liefern wir am Montag und Dienstag?"},
        ),
        ("Ich will ein Datum auswählen", "pick_date", {"label": "Welches Datum?"}),
        ("Lass mich ein Datum für den Urlaub wählen.", "pick_date", {"label": "Datum für den Urlaub"}),
    ],
)
def test_other_german_words_are_understood(prompt, name, arguments):
    (call,) = reply(*said(prompt), language="de").calls
    assert (call.name, call.arguments) == (name, arguments)


async def test_tools_answer_in_the_language_of_the_thread():
    skies = {get_weather(GERMAN, city)["sky"] for city in map(str, range(100))}
    assert skies == {"klar", "bewölkt", "regnerisch", "windig", "neblig", "verschneit"}
    assert (await get_time(GERMAN, "UTC"))["weekday"].endswith(("tag", "Mittwoch"))
    with pytest.raises(ToolError, match="keine Zeitzone"):
        await get_time(GERMAN, "Nirgends")
    with pytest.raises(ToolError, match="Geben Sie eine Zahl von 1 bis 100 an"):
        await count_to(GERMAN, 0)
    with pytest.raises(ToolError, match="1 bis 20 Personen"):
        book_table(GERMAN, "Rossini", 21, "19:30")


def test_a_booking_is_named_in_the_language_of_the_admin():
    booking = Booking(restaurant="Rossini", people=4, time="19:30")
    assert str(booking) == "Rossini, 4 people, 19:30"
    with override("de"):
        assert str(booking) == "Rossini, 4 Personen, 19:30"


@pytest.mark.django_db
@pytest.mark.parametrize(("header", "more"), [("de-AT,de;q=0.9", " Reply in German."), ("en", ""), ("fr", "")])
def test_a_thread_keeps_the_language_of_the_page(client, settings, header, more):
    """Workers have no request."""
    settings.DURABLE_AGENTS = {"POLICY": "demo_project.policies.DemoPolicy"}
    settings.LANGUAGE_CODE = "en"
    client.force_login(person("ada"))
    body = {"agent": "assistant", "metadata": {"language": "de"}}
    answered = client.post(
        reverse("durable_agents:threads"), body, content_type="application/json", headers={"accept-language": header}
    )
    assert instructions(Thread.objects.get(pk=answered.json()["id"])) == INSTRUCTIONS + more
