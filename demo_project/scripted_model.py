"""A scripted model that understands a few phrases. With this model, the demo needs neither an API key nor a network.

It replies in English, or in German if the system message says "Reply in German.", as the demo's agent does for a
reader of German.

`python -m demo_project.scripted_model --port 8765` runs it as an HTTP server, which litellm uses like any other
provider.
"""

import argparse
import asyncio
import json
import re
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import django
from django.conf import settings
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext, override, pgettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from .model_server import Body, Call, ModelServer, Reply

LOCALE = Path(__file__).parent / "locale"
LANGUAGES = {"German": "de"}
REPLY_IN = re.compile(r"\bReply in (\w+)\.")
NOTICE = _(
    "*This answer is scripted, no AI model wrote it. For a real one set `DEMO_MODEL` (any litellm name, such as "
    "`openai/gpt-4o-mini`) and its provider's key, or start the demo with `--local-model`.*"
)
MENU = _(
    "I am a scripted model and understand only a few phrases. Try:\n\n"
    "- **What is the weather in Paris and the time in Tokyo?** calls two tools at once.\n"
    "- **Add 2 and 3** calls a tool that adds.\n"
    "- **Count to ten** calls a tool that reports its progress.\n"
    "- **Book a table for four at Luigi's at 19:30** waits for your approval.\n"
    "- **Ask a colleague: do we ship on Friday?** waits for a person's answer: yours, in this demo.\n"
    "- **Let me pick a date for the launch** calls a tool that runs in your browser.\n"
    "- **Think about it** shows reasoning before the answer.\n"
    "- **Tell me a long story** takes about a minute: kill a worker meanwhile, reload the page, or press stop."
)
WONDER = _("The question is short. A short answer will do. Nothing has to be looked up, so no tool is needed.")
DECIMAL = r"(-?\d+(?:[.,]\d+)?)"
SUM = re.compile(rf"{DECIMAL}\s*(?:\+|plus|and|und|to)\s*{DECIMAL}")
ADDING = r"\b(?:add|addiere?|sum|plus)\b"
TOPICS = {"get_weather": re.compile(r"\b(?:weather|wetter)\b"), "get_time": re.compile(r"\b(?:time|uhrzeit|spät)\b")}
PLACE = re.compile(r"\b(?:in|at|for|of)\s+(.+)$")
NO_PLACE = re.compile(r"\b(?:the|now|today|right|please|jetzt|heute|gerade|bitte)\b")
GERMAN_CITIES = {
    "tokio": "tokyo",
    "wien": "vienna",
    "rom": "rome",
    "brüssel": "brussels",
    "kopenhagen": "copenhagen",
    "lissabon": "lisbon",
    "moskau": "moscow",
    "warschau": "warsaw",
    "zürich": "zurich",
}
SEPARATOR = re.compile(r"\s*(?:,|;|\?|!|\.\s|\.$|\b(?:and|und)\b)\s*")
COLLEAGUE = r"\b(?:colleague|kollege|kollegen|kollegin)\b"
LATE_RESULT = re.compile(r"^\[The call of (\w+) that was still open has its result: (.*)\]$", re.DOTALL)
REFUSED = re.compile(r"Error: A person refused this call\.\s*(.*)", re.DOTALL)
CHANGED = re.compile(r"^\[A person changed the arguments to .*\]\n")
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "ten": 10} | {
    "zwei": 2,
    "drei": 3,
    "vier": 4,
    "fünf": 5,
    "sechs": 6,
    "sieben": 7,
    "acht": 8,
    "zehn": 10,
}
NUMBER = rf"(\d+|{'|'.join(NUMBERS)})\b"
ERRAND_BEGINS = {
    "count_to": _("Here I go."),
    "book_table": _("I can book that. Please check the details first."),
    "ask_colleague": _("I'll ask, and continue as soon as there is an answer, however long that takes."),
    "pick_date": _("Please pick one."),
}

HEROES = (
    pgettext_lazy("story", "a lighthouse keeper"),
    pgettext_lazy("story", "a clockmaker"),
    pgettext_lazy("story", "the youngest cartographer"),
    pgettext_lazy("story", "a retired ferry pilot"),
    pgettext_lazy("story", "an apprentice baker"),
)
DEEDS = (
    pgettext_lazy("story", "counted"),
    pgettext_lazy("story", "repaired"),
    pgettext_lazy("story", "followed"),
    pgettext_lazy("story", "misplaced"),
    pgettext_lazy("story", "sketched"),
    pgettext_lazy("story", "rescued"),
    pgettext_lazy("story", "traded"),
)
THINGS = (
    pgettext_lazy("story", "a brass key"),
    pgettext_lazy("story", "the last lantern"),
    pgettext_lazy("story", "a letter without a name"),
    pgettext_lazy("story", "three seagulls"),
    pgettext_lazy("story", "an old song"),
    pgettext_lazy("story", "the winter map"),
)
ENDINGS = (
    pgettext_lazy("story", "before the tide came back"),
    pgettext_lazy("story", "while the harbour slept"),
    pgettext_lazy("story", "and told nobody"),
    pgettext_lazy("story", "as the bells began to ring"),
)


def answer(request: Body) -> Reply:
    """Return the reply to a chat completion request. If the request ends with tool results, the reply reports these
    results. Otherwise it answers the user's last message.
    """
    messages = request.get("messages", [])
    with override(requested_language(messages)):
        if messages and messages[-1].get("role") == "tool":
            return Reply(text=with_notice(report(messages)))
        return reply_to_user(last_words(messages), offered_tools(request))


def requested_language(messages: list[Body]) -> str:
    """Return the language that the system message asks for. Without one, it is English."""
    system = " ".join(str(message.get("content")) for message in messages if message.get("role") == "system")
    found = REPLY_IN.search(system)
    return LANGUAGES.get(found[1], "en") if found else "en"


def with_notice(text: object) -> str:
    """Return the text, followed by a notice that it is scripted."""
    return f"{text}\n\n{NOTICE}"


def reply_to_user(said: str, tools: set[str]) -> Reply:
    """Return the reply to the user's message. It calls only tools whose names are in `tools`."""
    if late := LATE_RESULT.search(said):
        return Reply(text=with_notice(sentence({"name": late[1]}, {"content": late[2]})))
    if (call := errand(said)) and call.name in tools:
        return Reply(text=str(ERRAND_BEGINS[call.name]), calls=(call,))
    words = said.lower()
    if calls := tuple(call for call in wanted_calls(words) if call.name in tools):
        return Reply(text=gettext("Let me look that up."), calls=calls)
    if re.search(r"\b(?:long|story|geschichte)\b", words):
        return Reply(text=with_notice(story()), delay_seconds=0.05)
    if re.search(r"\b(?:think|denk|denke)\b", words):
        thought = gettext("I thought about it, and the answer is yes.")
        return Reply(reasoning=str(WONDER), text=with_notice(thought))
    return Reply(text=with_notice(MENU))


def last_words(messages: list[Body]) -> str:
    """Return the text of the last user message."""
    content = next((m.get("content") for m in reversed(messages) if m.get("role") == "user"), "")
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content)
    return content or ""


def offered_tools(request: Body) -> set[str]:
    """Return the names of the tools that the request allows the model to call."""
    return {tool["function"]["name"] for tool in request.get("tools") or []}


def wanted_calls(words: str) -> list[Call]:
    """Return the tool calls that the user's `words` ask for: a sum, weather, or the time."""
    calls = []
    if re.search(rf"{ADDING}|\d\s*\+", words) and (numbers := SUM.search(words)):
        a, b = (float(number.replace(",", ".")) for number in numbers.groups())
        calls.append(Call(name="add", arguments={"a": a, "b": b}))
        words = re.sub(ADDING, " ", words.replace(numbers[0], " "))
    topic = ""
    for clause in SEPARATOR.split(words):
        topic = next((name for name, pattern in TOPICS.items() if pattern.search(clause)), topic)
        if topic and (place := place_in(clause)):
            calls.append(place_call(topic, place))
    return calls


def errand(said: str) -> Call | None:
    """If the message asks for a slow tool, or for a tool that needs a person, return a call of that tool."""
    if counted := re.search(rf"\b(?:count to|zähle? bis) {NUMBER}", said, re.IGNORECASE):
        return Call(name="count_to", arguments={"number": number(counted[1])})
    if re.search(COLLEAGUE, said, re.IGNORECASE):
        return Call(name="ask_colleague", arguments={"question": question_in(said)})
    if re.search(r"\b(?:book|reserve|reserviere|buche)\b.*\b(?:table|tisch)\b", said, re.IGNORECASE):
        return booking(said)
    if re.search(r"\b(?:pick|choose)\b.*\bdate\b|\bdatum\b.*wählen\b", said, re.IGNORECASE):
        words_of_purpose = r"\b(?:date|datum)\s+(?:for|of|für)\s+(.+?)(?:\s+(?:aus)?wählen)?[.!?\s]*$"
        purpose = re.search(words_of_purpose, said, re.IGNORECASE)
        label = gettext("Date for {purpose}").format(purpose=purpose[1]) if purpose else gettext("Which date?")
        return Call(name="pick_date", arguments={"label": label})
    return None


def question_in(said: str) -> str:
    """Return the question for the colleague: the words after "colleague" or its German name, as a question."""
    words = re.split(rf"{COLLEAGUE}\W*", said, maxsplit=1, flags=re.IGNORECASE)[1]
    asked = re.sub(r"^(about|if|whether|to)\s+", "", words, flags=re.IGNORECASE).rstrip(" .?!")
    return f"{asked[:1].upper()}{asked[1:]}?" if asked else gettext("Can you help us?")


def booking(said: str) -> Call:
    """Return the tool call that books the table in the user's message, by default for two people at 19:30."""
    people = re.search(rf"\b(?:for|für)\s+{NUMBER}", said, re.IGNORECASE)
    time = re.search(r"\b([01]?\d|2[0-3])[:.]([0-5]\d)\b", said)
    end = r"(?=\s+(?:at|for|on|in|um|für|am)\b|[,.?!]|$)"
    place = re.search(rf"\b(?:at|in|bei|im)\s+(?!\d)(.+?){end}", said, re.IGNORECASE)
    arguments = {
        "restaurant": place[1] if place else "Luigi's",
        "people": number(people[1]) if people else 2,
        "time": f"{time[1]}:{time[2]}" if time else "19:30",
    }
    return Call(name="book_table", arguments=arguments)


def number(word: str) -> int:
    """Parse a number that is written as a word or in digits."""
    return NUMBERS.get(word.lower()) or int(word)


def place_in(clause: str) -> str:
    """Return the place, such as a city, that a clause contains, or "" if there is none.

    The place is what follows "in" or a similar word. A clause of one or two words, such as "Tokyo", is a place itself,
    unless it contains a topic, such as "weather".
    """
    if found := PLACE.search(clause):
        return NO_PLACE.sub("", found[1]).strip()
    is_topic = any(pattern.search(clause) for pattern in TOPICS.values())
    return "" if is_topic or len(clause.split()) > 2 else clause.strip()


def place_call(topic: str, place: str) -> Call:
    """Return a call of the tool `topic` (weather or time) for `place`."""
    if topic == "get_time":
        return Call(name=topic, arguments={"tz": zone(place)})
    return Call(name=topic, arguments={"city": place.title()})


@cache
def zones() -> dict[str, str]:
    """Return all time zones by name and by city. The keys are in lower case."""
    names = sorted(available_timezones())
    cities = {name.rpartition("/")[2].lower().replace("_", " "): name for name in reversed(names)}
    return cities | {name.lower(): name for name in names}


def zone(place: str) -> str:
    """Return the time zone of `place`, or `place` itself if no zone is known. The tool then reports an error."""
    return zones().get(GERMAN_CITIES.get(place, place), place)


def report(messages: list[Body]) -> str:
    """Return a sentence about each tool result at the end of `messages`."""
    results: list[Body] = []
    while messages and messages[-1].get("role") == "tool":
        *messages, result = messages
        results.insert(0, result)
    made = {call["id"]: call["function"] for call in (messages or [{}])[-1].get("tool_calls") or []}
    return " ".join(sentence(made.get(result.get("tool_call_id"), {}), result) for result in results)


def sentence(function: Body, result: Body) -> str:
    """Return a sentence about the `result` of one tool call. `function` contains the tool's name and arguments."""
    name, told = function.get("name", ""), str(result.get("content"))
    if refused := REFUSED.match(told):
        said = gettext("You said: {reason}").format(reason=refused[1])
        return gettext("All right, I'll leave it.") + (f" {said}" if refused[1] else "")
    if told.startswith("Error: "):
        error = told.removeprefix("Error: ").rstrip(".")
        return gettext("The tool {name} failed: {error}.").format(name=name, error=error)
    value = loaded(CHANGED.sub("", told))
    try:
        return SENTENCES[name](value, loaded(function.get("arguments")))
    except (KeyError, TypeError):
        return gettext("The tool {name} answered: {value}.").format(name=name, value=str(value).rstrip("."))


def loaded(text: Any) -> Any:
    """Return the JSON value in `text`, or `text` itself if it is not JSON."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


SENTENCES: dict[str, Callable[[Any, Any], str]] = {
    "get_weather": lambda value, _given: gettext("In {city} it is {temperature_c} °C and {sky}.").format(**value),
    "get_time": lambda value, _given: gettext("In {tz} it is {weekday}, {hour}.").format(
        tz=value["tz"], weekday=value["weekday"], hour=value["time"][11:16]
    ),
    "add": lambda value, given: gettext("{a} and {b} make {sum}.").format(
        a=decimal(given["a"]), b=decimal(given["b"]), sum=decimal(value)
    ),
    "count_to": lambda value, _given: gettext("I counted to {number}.").format(number=value),
    "book_table": lambda value, _given: gettext(
        "Your table is booked: **{restaurant}**, {people} people, {time}. It is booking number {booking}."
    ).format(**value),
    "ask_colleague": lambda value, _given: gettext("Your colleague says: {answer}").format(answer=value),
    "pick_date": lambda value, _given: gettext("You picked {date}.").format(date=spelled(value)),
}


def decimal(value: float) -> str:
    """Return a number as text, with the decimal separator of the language."""
    return number_format(f"{value:g}")


def spelled(day: Any) -> str:
    """Return an ISO date as text, such as Monday, 3 March 2025. Return any other value unchanged, as text."""
    try:
        found = date.fromisoformat(day)
    except (TypeError, ValueError):
        return str(day)
    return date_format(found, pgettext("format of a date", "l, j F Y"))


def story(paragraphs: int = 20) -> str:
    """Return a story with about fifty words per paragraph. No long sequence of words occurs twice in the story."""
    title = gettext("A long story, told slowly.")
    return "\n\n".join([title, *(paragraph(number) for number in range(1, paragraphs + 1))])


def paragraph(number: int) -> str:
    """Return the paragraph `number` of the story."""
    sentence_of_day = gettext("On day {day} {hero} {deed} {thing} {ending}.")
    sentences = []
    for turn in range(4):
        seed = number * 4 + turn
        hero, deed = HEROES[seed % len(HEROES)], DEEDS[seed % len(DEEDS)]
        thing, ending = THINGS[(seed // 2) % len(THINGS)], ENDINGS[(seed // 3) % len(ENDINGS)]
        sentences.append(sentence_of_day.format(day=seed, hero=hero, deed=deed, thing=thing, ending=ending))
    return f"**{number}.** " + " ".join(sentences)


async def serve(host: str, port: int) -> None:
    """Serve the scripted model until the process is ended."""
    server = await ModelServer(answer).serve(host, port)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="An OpenAI-compatible server whose answers are scripted.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    # This process needs the translations only, not the demo's settings and apps.
    settings.configure(LOCALE_PATHS=[LOCALE])
    django.setup()
    asyncio.run(serve(options.host, options.port))


if __name__ == "__main__":
    main()
