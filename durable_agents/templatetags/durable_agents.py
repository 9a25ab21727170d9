"""Template tags: a chat, a list of threads, and the import map of the JavaScript modules.

    {% load durable_agents %}
    {% durable_chat thread %}

If Django 6 or django-csp adds a nonce to the page's Content-Security-Policy, the script tags contain the nonce.
"""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django import template
from django.conf import settings
from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.templatetags.static import static
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from durable_agents.live.reader import ThreadReader
from durable_agents.models import Thread
from durable_agents.parts import text_of
from durable_agents.templatetags.chat_texts import TEXTS

MODULES = {
    "django-durable-agents": "durable-agents",
    "django-durable-agents/react": "react",
    "django-durable-agents/element": "element",
    "django-durable-agents/markdown": "markdown",
}
"""The names that scripts use to import the modules, each with the name of the module's file."""
SHOWN_WITHOUT_SCRIPTS = 20
"""How many messages a page shows if scripts do not run."""

register = template.Library()


@register.inclusion_tag("durable_agents/chat.html", takes_context=True)
def durable_chat(
    context: template.Context, thread: Thread | UUID | str | None = None, **attributes: object
) -> dict[str, object]:
    """Render `<durable-chat>` and its script. Without a thread, the first message creates one.

    Further arguments become attributes of the element: `agent`, `prompts` (a list), `ws_url`, `readonly=True`, … If
    scripts do not run, the page shows the thread's last messages.
    """
    identity = thread.pk if isinstance(thread, Thread) else thread
    said: list[dict[str, str]] = []
    if identity is not None:
        messages = ThreadReader(UUID(str(identity))).snapshot(tail=SHOWN_WITHOUT_SCRIPTS)["messages"]
        said = [{"role": message["role"], "text": text_of(message["parts"])} for message in messages]
    shown = [message for message in said if message["text"]]
    return _element(context, "durable-chat", {"thread-id": identity} | attributes) | {"messages": shown}


@register.inclusion_tag("durable_agents/chat.html", takes_context=True)
def durable_thread_list(context: template.Context, **attributes: object) -> dict[str, object]:
    """Render `<durable-thread-list>` and its script. `for="id"` names the chat that shows the chosen thread."""
    return _element(context, "durable-thread-list", attributes)


@register.simple_tag(takes_context=True)
def durable_agents_importmap(context: template.Context, **more: str) -> SafeString:
    """Render the import map that lets scripts of the page import the package's modules by name.

    Further arguments add modules to the map: `react="myapp/react.js"` adds a static file under the name `react`. A page
    can have only one import map, which must come before its module scripts. Unless `DEBUG` is on, the files are
    minified.
    """
    suffix = ".js" if settings.DEBUG else ".min.js"
    imports = {name: static(f"durable_agents/{file}{suffix}") for name, file in MODULES.items()}
    imports |= {name: static(path) for name, path in more.items()}
    # Escape the characters that could end the script element.
    written = json.dumps({"imports": imports}).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    nonce = _nonce(context)
    attribute = format_html(' nonce="{}"', nonce) if nonce else ""
    return format_html('<script type="importmap"{}>{}</script>', attribute, SafeString(written))


def _element(context: template.Context, name: str, attributes: Mapping[str, object]) -> dict[str, object]:
    request: HttpRequest | None = context.get("request")
    try:
        api_url = reverse("durable_agents:threads").removesuffix("threads/")
    except NoReverseMatch:
        missing = 'Add path("agents/", include("durable_agents.urls")) to the URLs of the project.'
        raise NoReverseMatch(missing) from None
    known: dict[str, object] = {
        "api-url": api_url,
        "texts": {key: str(text) for key, text in TEXTS.items()},
        "csrf-token": get_token(request) if request is not None else None,
    }
    given = {key.replace("_", "-"): value for key, value in attributes.items()}
    # None and False give no attribute, True gives an empty attribute, and a list or mapping is written as JSON.
    written = [
        (key, "" if value is True else json.dumps(value) if isinstance(value, (list, tuple, dict)) else str(value))
        for key, value in (known | given).items()
        if value is not None and value is not False
    ]
    return {"name": name, "attributes": written, "nonce": _nonce(context)}


def _nonce(context: template.Context) -> str:
    """Return the nonce of the page's Content-Security-Policy. When the nonce is read, Django or django-csp adds it to
    the policy.
    """
    request: Any = context.get("request")
    return str(context.get("csp_nonce") or getattr(request, "csp_nonce", None) or "")
