"""Declare the demo's agent and its tools. `durable_agents` imports the module `agents` of every installed app, as
Django imports `admin`.
"""

import asyncio
import hashlib
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.utils.formats import date_format
from django.utils.translation import get_language_info, gettext, override, pgettext_lazy

from durable_agents import Agent, ToolContext, ToolError, tool
from durable_agents.models import Thread

from .models import Booking

SCRIPTED_URL = "http://127.0.0.1:8765/v1"
SKIES = (
    pgettext_lazy("sky", "clear"),
    pgettext_lazy("sky", "cloudy"),
    pgettext_lazy("sky", "rainy"),
    pgettext_lazy("sky", "windy"),
    pgettext_lazy("sky", "foggy"),
    pgettext_lazy("sky", "snowy"),
)
MOST_PEOPLE = 20
MOST_COUNTED = 100


def reader_language(context: Mapping[str, Any]) -> str:
    """Return the language that the thread's context names (see `DemoPolicy`). Without one, it is English."""
    return context.get("language") or "en"


@tool
def get_weather(ctx: ToolContext, city: str) -> dict[str, Any]:
    """Return today's weather in a city. This is demo data, made up from the city's name and always the same."""
    digest = hashlib.sha256(city.strip().lower().encode()).digest()
    with override(reader_language(ctx.context)):
        sky = str(SKIES[digest[1] % len(SKIES)])
    return {"city": city, "temperature_c": digest[0] % 35 - 2, "sky": sky, "demo_data": True}


@tool
async def get_time(ctx: ToolContext, tz: str) -> dict[str, str]:
    """Return the current time in an IANA time zone, such as Europe/Paris."""
    with override(reader_language(ctx.context)):
        try:
            now = datetime.now(ZoneInfo(tz))
        except (OSError, ValueError, KeyError) as error:
            message = gettext("{tz} is no time zone. Use a name such as 'Europe/Paris' or 'UTC'.")
            raise ToolError(message.format(tz=repr(tz))) from error
        return {"tz": tz, "time": now.isoformat(timespec="seconds"), "weekday": date_format(now, "l")}


@tool
def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


@tool
async def count_to(ctx: ToolContext, number: int) -> int:
    """Count up to a number of at most 100, with two numbers per second, and report the progress."""
    if not 1 <= number <= MOST_COUNTED:
        with override(reader_language(ctx.context)):
            raise ToolError(gettext("Give a number from 1 to {most}.").format(most=MOST_COUNTED))
    for done in range(number):
        ctx.progress({"done": done, "total": number})
        await asyncio.sleep(0.5)
    return number


@tool(atomic=True, needs_approval=True, timeout_seconds=None)
def book_table(ctx: ToolContext, restaurant: str, people: int, time: str) -> dict[str, Any]:
    """Book a table at a restaurant for a number of people at a time such as 19:30. The user approves it first."""
    if not 1 <= people <= MOST_PEOPLE:
        with override(reader_language(ctx.context)):
            raise ToolError(gettext("A table is for 1 to {most} people.").format(most=MOST_PEOPLE))
    booking = Booking.objects.create(
        restaurant=restaurant[:200], people=people, time=time[:40], booked_for_id=getattr(ctx.owner, "pk", None)
    )
    return {"booking": booking.pk, "restaurant": booking.restaurant, "people": people, "time": booking.time}


@tool(kind="deferred", answered_by="owner", timeout_seconds=None)
def ask_colleague(ctx: ToolContext, question: str) -> None:
    """Ask a colleague a question that only a person can answer. The answer may take hours."""
    # A real tool would send an email here. In the demo, the user answers as the colleague, on the chat page.


@tool(kind="client", timeout_seconds=None)
def pick_date(label: str) -> str:
    """Let the user pick a date in the browser. The label says what the date is for. Returns YYYY-MM-DD."""
    raise NotImplementedError("The browser runs this.")


class Setup(NamedTuple):
    """The model to use, the settings to reach it, and whether it can call tools."""

    model: str
    settings: dict[str, Any]
    calls_tools: bool = True


def setup(environ: Mapping[str, str]) -> Setup:
    """Return the model that `environ` selects.

    `DEMO_LOCAL_URL` (set by `manage.py demo --local-model`) takes precedence over `DEMO_MODEL`, which can be any
    litellm model string. If neither variable is set, the scripted model is used. `manage.py demo` sets
    `DEMO_SCRIPTED_URL` to the address of the scripted model.
    """
    if url := environ.get("DEMO_LOCAL_URL"):
        settings = {"api_base": url, "api_key": "local", "temperature": 0.2, "max_tokens": 400}
        return Setup("openai/smollm2", settings, calls_tools=False)
    if model := environ.get("DEMO_MODEL"):
        return Setup(model, placeholder_key(model, environ))
    url = environ.get("DEMO_SCRIPTED_URL", SCRIPTED_URL)
    return Setup("openai/scripted", {"api_base": url, "api_key": "scripted"})


def placeholder_key(model: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return a dummy API key if `model` runs on an OpenAI-compatible server that needs no key. The client library
    requires a key.
    """
    own_server = environ.get("OPENAI_API_BASE") or environ.get("OPENAI_BASE_URL")
    if model.startswith("openai/") and own_server and not environ.get("OPENAI_API_KEY"):
        return {"api_key": "none"}
    return {}


def instructions(thread: Thread) -> str:
    """Return the instructions for a thread. A reader whose language is not English is answered in that language."""
    language = reader_language(thread.context)
    return INSTRUCTIONS if language == "en" else f"{INSTRUCTIONS} Reply in {get_language_info(language)['name']}."


INSTRUCTIONS = (
    "You are a friendly assistant. Be brief. Use the tools for weather, time, sums and counting, to book a table, "
    "to ask a colleague what only a person can know, and to let the user pick a date."
)
TOOLS = [get_weather, get_time, add, count_to, book_table, ask_colleague, pick_date]

chosen = setup(os.environ)

assistant = Agent(
    "assistant",
    model=chosen.model,
    instructions=instructions,
    tools=TOOLS if chosen.calls_tools else [],
    model_settings=chosen.settings,
    public=True,
)
