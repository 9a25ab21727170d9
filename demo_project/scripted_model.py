"""What the scripted model says: a few phrases it understands, enough to show the product without a key or a network.

Run as a process of its own, `python -m demo_project.scripted_model --port 8765`, it is a real HTTP server that litellm
talks to as to any other provider.
"""

import argparse
import asyncio
import json
import re
from collections.abc import Callable
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
    "- **Think about it** shows reasoning before the answer.\n"
    "- **Tell me a long story** takes about a minute: kill a worker meanwhile, reload the page, or press stop."
)
WONDER = "The question is short. A short answer will do. Nothing has to be looked up, so no tool is needed."
SUM = re.compile(r"(-?\d+(?:\.\d+)?)\s*(?:\+|plus|and|to)\s*(-?\d+(?:\.\d+)?)")
TOPICS = {"get_weather": re.compile(r"\bweather\b"), "get_time": re.compile(r"\btime\b")}
PLACE = re.compile(r"\b(?:in|at|for|of)\s+(.+)$")
SEPARATOR = re.compile(r"\s*(?:,|;|\?|!|\.\s|\.$|\band\b)\s*")

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
    """Return the reply to a chat completion request: to the tool results it ends with, else to the user's words."""
    messages = request.get("messages", [])
    if messages and messages[-1].get("role") == "tool":
        return Reply(text=report(messages) + NOTICE)
    return reply_to_user(last_words(messages).lower(), offered_tools(request))


def reply_to_user(words: str, tools: set[str]) -> Reply:
    """Return the reply to a user's `words`, calling only the `tools` that are offered."""
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
    """Return the tool calls that `words` ask for, in order."""
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


def place_in(clause: str) -> str:
    """Return the place that a clause names: what follows "in", or all of a clause of one or two words."""
    if found := PLACE.search(clause):
        return re.sub(r"\b(the|now|today|right|please)\b", "", found[1]).strip()
    is_topic = any(pattern.search(clause) for pattern in TOPICS.values())
    return "" if is_topic or len(clause.split()) > 2 else clause.strip()


def place_call(topic: str, place: str) -> Call:
    """Return the call of the tool `topic` for `place`."""
    if topic == "get_time":
        return Call(name=topic, arguments={"tz": zone(place)})
    return Call(name=topic, arguments={"city": place.title()})


@cache
def zones() -> dict[str, str]:
    """Return the time zones by their lower-case name, by their city's too."""
    names = sorted(available_timezones())
    cities = {name.rpartition("/")[2].lower().replace("_", " "): name for name in reversed(names)}
    return cities | {name.lower(): name for name in names}


def zone(place: str) -> str:
    """Return the time zone of `place`, or `place` itself, which the tool will then refuse."""
    return zones().get(place, place)


def report(messages: list[Body]) -> str:
    """Return a sentence on each tool result at the end of `messages`."""
    results: list[Body] = []
    while messages and messages[-1].get("role") == "tool":
        *messages, result = messages
        results.insert(0, result)
    made = {call["id"]: call["function"] for call in (messages or [{}])[-1].get("tool_calls") or []}
    return " ".join(sentence(made.get(result.get("tool_call_id"), {}), result) for result in results)


def sentence(function: Body, result: Body) -> str:
    """Return what the model says of one tool's `result`."""
    name = function.get("name", "")
    value = loaded(result.get("content"))
    try:
        return SENTENCES[name](value, loaded(function.get("arguments")))
    except (KeyError, TypeError):
        return f"The tool {name} answered: {str(value).rstrip('.')}."


def loaded(text: Any) -> Any:
    """Return the JSON value in `text`, or `text` itself where it holds none."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


SENTENCES: dict[str, Callable[[Any, Any], str]] = {
    "get_weather": lambda value, _: f"In {value['city']} it is {value['temperature_c']} °C and {value['sky']}.",
    "get_time": lambda value, _: f"In {value['tz']} it is {value['weekday']}, {value['time'][11:16]}.",
    "add": lambda value, given: f"{given['a']:g} and {given['b']:g} make {value:g}.",
}


def story(paragraphs: int = 20) -> str:
    """Return a story of about fifty words a paragraph in which no long run of words repeats."""
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
