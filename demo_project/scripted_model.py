"""A scripted model that understands a few phrases. With this model, the demo needs neither an API key nor a network.

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
from typing import Any
from zoneinfo import available_timezones

from .model_server import Body, Call, ModelServer, Reply

NOTICE = (
    "\n\n*This answer is scripted, no AI model wrote it. For a real one set `DEMO_MODEL` (any litellm name, such as "
    "`openai/gpt-4o-mini`) and its provider's key, or start the demo with `--local-model`.*"
)
MENU = (
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
WONDER = "The question is short. A short answer will do. Nothing has to be looked up, so no tool is needed."
SUM = re.compile(r"(-?\d+(?:\.\d+)?)\s*(?:\+|plus|and|to)\s*(-?\d+(?:\.\d+)?)")
TOPICS = {"get_weather": re.compile(r"\bweather\b"), "get_time": re.compile(r"\btime\b")}
PLACE = re.compile(r"\b(?:in|at|for|of)\s+(.+)$")
SEPARATOR = re.compile(r"\s*(?:,|;|\?|!|\.\s|\.$|\band\b)\s*")

GERMAN = (
    (r"\bwie ist das wetter\b", "what is the weather"),
    (r"\bund wie spät ist es\b", "and the time"),
    (r"\btokio\b", "Tokyo"),
    (r"\bzähle bis zehn\b", "count to ten"),
    (r"\bzähle bis\b", "count to"),
    (r"\blange geschichte\b", "long story"),
    (r"\breserviere einen tisch für vier bei (.+) um\b", r"book a table for four at \1 at"),
    (r"\bfrag eine kollegin\b", "ask a colleague"),
    (r"\blass mich ein datum für (.+) wählen", r"let me pick a date for \1"),
)
"""The German suggestions of the chat page, and what they mean. The replies are in English."""
LATE_RESULT = re.compile(r"^\[The call of (\w+) that was still open has its result: (.*)\]$", re.DOTALL)
REFUSED = re.compile(r"Error: A person refused this call\.\s*(.*)", re.DOTALL)
CHANGED = re.compile(r"^\[A person changed the arguments to .*\]\n")
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "ten": 10}
NUMBER = rf"(\d+|{'|'.join(NUMBERS)})\b"
ERRAND_BEGINS = {
    "count_to": "Here I go.",
    "book_table": "I can book that. Please check the details first.",
    "ask_colleague": "I'll ask, and continue as soon as there is an answer, however long that takes.",
    "pick_date": "Please pick one.",
}

HEROES = (
    "a lighthouse keeper",
    "a clockmaker",
    "the youngest cartographer",
    "a retired ferry pilot",
    "an apprentice baker",
)
DEEDS = ("counted", "repaired", "followed", "misplaced", "sketched", "rescued", "traded")
THINGS = (
    "a brass key",
    "the last lantern",
    "a letter without a name",
    "three seagulls",
    "an old song",
    "the winter map",
)
ENDINGS = ("before the tide came back", "while the harbour slept", "and told nobody", "as the bells began to ring")


def answer(request: Body) -> Reply:
    """Return the reply to a chat completion request. If the request ends with tool results, the reply reports these
    results. Otherwise it answers the user's last message.
    """
    messages = request.get("messages", [])
    if messages and messages[-1].get("role") == "tool":
        return Reply(text=report(messages) + NOTICE)
    return reply_to_user(last_words(messages), offered_tools(request))


def reply_to_user(said: str, tools: set[str]) -> Reply:
    """Return the reply to the user's message. It calls only tools whose names are in `tools`."""
    for german, english in GERMAN:
        said = re.sub(german, english, said, flags=re.IGNORECASE)
    if late := LATE_RESULT.search(said):
        return Reply(text=sentence({"name": late[1]}, {"content": late[2]}) + NOTICE)
    if (call := errand(said)) and call.name in tools:
        return Reply(text=ERRAND_BEGINS[call.name], calls=(call,))
    words = said.lower()
    if calls := tuple(call for call in wanted_calls(words) if call.name in tools):
        return Reply(text="Let me look that up.", calls=calls)
    if re.search(r"\b(long|story)\b", words):
        return Reply(text=story() + NOTICE, delay_seconds=0.05)
    if re.search(r"\bthink\b", words):
        return Reply(reasoning=WONDER, text="I thought about it, and the answer is yes." + NOTICE)
    return Reply(text=MENU + NOTICE)


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
    if re.search(r"\b(add|sum|plus)\b|\d\s*\+", words) and (numbers := SUM.search(words)):
        calls.append(Call(name="add", arguments={"a": float(numbers[1]), "b": float(numbers[2])}))
        words = re.sub(r"\b(add|sum|plus)\b", " ", words.replace(numbers[0], " "))
    topic = ""
    for clause in SEPARATOR.split(words):
        topic = next((name for name, pattern in TOPICS.items() if pattern.search(clause)), topic)
        if topic and (place := place_in(clause)):
            calls.append(place_call(topic, place))
    return calls


def errand(said: str) -> Call | None:
    """If the message asks for a slow tool, or for a tool that needs a person, return a call of that tool."""
    if counted := re.search(rf"\bcount to {NUMBER}", said, re.IGNORECASE):
        return Call(name="count_to", arguments={"number": number(counted[1])})
    if re.search(r"\bcolleague\b", said, re.IGNORECASE):
        return Call(name="ask_colleague", arguments={"question": question_in(said)})
    if re.search(r"\b(book|reserve)\b.*\btable\b", said, re.IGNORECASE):
        return booking(said)
    if re.search(r"\b(pick|choose)\b.*\bdate\b", said, re.IGNORECASE):
        purpose = re.search(r"\bdate\s+(?:for|of)\s+(.+?)[.!?\s]*$", said, re.IGNORECASE)
        return Call(name="pick_date", arguments={"label": f"Date for {purpose[1]}" if purpose else "Which date?"})
    return None


def question_in(said: str) -> str:
    """Return the question for the colleague: the words after "colleague", as a question."""
    words = re.split(r"\bcolleague\b\W*", said, maxsplit=1, flags=re.IGNORECASE)[1]
    asked = re.sub(r"^(about|if|whether|to)\s+", "", words, flags=re.IGNORECASE).rstrip(" .?!")
    return f"{asked[:1].upper()}{asked[1:]}?" if asked else "Can you help us?"


def booking(said: str) -> Call:
    """Return the tool call that books the table in the user's message, by default for two people at 19:30."""
    people = re.search(rf"\bfor\s+{NUMBER}", said, re.IGNORECASE)
    time = re.search(r"\b([01]?\d|2[0-3])[:.]([0-5]\d)\b", said)
    place = re.search(r"\b(?:at|in)\s+(?!\d)(.+?)(?=\s+(?:at|for|on|in)\b|[,.?!]|$)", said, re.IGNORECASE)
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
        return re.sub(r"\b(the|now|today|right|please)\b", "", found[1]).strip()
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
    return zones().get(place, place)


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
        return "All right, I'll leave it." + (f" You said: {refused[1]}" if refused[1] else "")
    if told.startswith("Error: "):
        return f"The tool {name} failed: {told.removeprefix('Error: ').rstrip('.')}."
    value = loaded(CHANGED.sub("", told))
    try:
        return SENTENCES[name](value, loaded(function.get("arguments")))
    except (KeyError, TypeError):
        return f"The tool {name} answered: {str(value).rstrip('.')}."


def loaded(text: Any) -> Any:
    """Return the JSON value in `text`, or `text` itself if it is not JSON."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


SENTENCES: dict[str, Callable[[Any, Any], str]] = {
    "get_weather": lambda value, _: f"In {value['city']} it is {value['temperature_c']} °C and {value['sky']}.",
    "get_time": lambda value, _: f"In {value['tz']} it is {value['weekday']}, {value['time'][11:16]}.",
    "add": lambda value, given: f"{given['a']:g} and {given['b']:g} make {value:g}.",
    "count_to": lambda value, _: f"I counted to {value}.",
    "book_table": lambda value, _: (
        f"Your table is booked: **{value['restaurant']}**, {value['people']} people, {value['time']}. "
        f"It is booking number {value['booking']}."
    ),
    "ask_colleague": lambda value, _: f"Your colleague says: {value}",
    "pick_date": lambda value, _: f"You picked {spelled(value)}.",
}


def spelled(day: Any) -> str:
    """Return an ISO date as text, such as Monday, 3 March 2025. Return any other value unchanged, as text."""
    try:
        found = date.fromisoformat(day)
    except (TypeError, ValueError):
        return str(day)
    return f"{found:%A}, {found.day} {found:%B %Y}"


def story(paragraphs: int = 20) -> str:
    """Return a story with about fifty words per paragraph. No long sequence of words occurs twice in the story."""
    return "A long story, told slowly.\n\n" + "\n\n".join(paragraph(number) for number in range(1, paragraphs + 1))


def paragraph(number: int) -> str:
    """Return the paragraph `number` of the story."""
    sentences = []
    for turn in range(4):
        seed = number * 4 + turn
        hero, deed = HEROES[seed % len(HEROES)], DEEDS[seed % len(DEEDS)]
        thing, ending = THINGS[(seed // 2) % len(THINGS)], ENDINGS[(seed // 3) % len(ENDINGS)]
        sentences.append(f"On day {seed} {hero} {deed} {thing} {ending}.")
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
    asyncio.run(serve(options.host, options.port))


if __name__ == "__main__":
    main()
