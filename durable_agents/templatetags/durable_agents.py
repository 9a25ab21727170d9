"""Template tags: a chat, a list of threads, and the import map of the JavaScript modules.

    {% load durable_agents %}
    {% durable_chat thread %}

If the page's Content-Security-Policy has a nonce from Django 6 or django-csp, the script tags contain this nonce.
"""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django import template
from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.templatetags.static import static
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from durable_agents.chat_texts import TEXTS, translated_errors
from durable_agents.models import Thread
from durable_agents.policies import denied_actions
from durable_agents.strictjson import is_uuid
from durable_agents.templatetags.chat_without_scripts import shown_thread, without_scripts

MODULES = {
    "django-durable-agents": "durable-agents",
    "django-durable-agents/react": "react",
    "django-durable-agents/element": "element",
    "django-durable-agents/ai-sdk": "ai-sdk",
    "django-durable-agents/markdown": "markdown",
}
"""The names that scripts use to import the modules, each with the name of the module's file."""

register = template.Library()


@register.inclusion_tag("durable_agents/chat.html", takes_context=True)
def durable_chat(
    context: template.Context, thread: Thread | UUID | str | None = None, **attributes: object
) -> dict[str, object]:
    """Render `<durable-chat>` and its script.

    Without `thread`, the element shows the thread that `?thread=` in the page's URL names. If the URL names no thread
    that the caller may view, the first message creates a thread.

    Further arguments become attributes of the element: `agent`, `prompts` (a list), `ws_url`, `readonly=True`, …
    Controls for actions that the policy denies to the caller are left out. If scripts do not run, the page shows the
    thread's last messages and a form.

    Raises `ValueError` if `thread` is neither a thread nor a thread's id. One cause is a variable that the template's
    context lacks: Django replaces it with an empty string.
    """
    given = thread.pk if isinstance(thread, Thread) else thread
    if given is not None and not is_uuid(str(given)):
        hint = 'Is the variable in the template\'s context? For a new thread, write {% durable_chat agent="..." %}.'
        raise ValueError(f"durable_chat needs a thread or the id of one, not {given!r}. {hint}")
    request: HttpRequest | None = context.get("request")
    # Without Django's authentication middleware, the request does not say who the caller is.
    request = request if hasattr(request, "user") else None
    shown = None if request is None else shown_thread(request, thread)
    identity = shown.pk if given is None and shown is not None else given
    denied = [] if request is None or shown is None else denied_actions(request, shown)
    named = {"thread-id": identity, "denied": " ".join(denied) or None}
    element = _element(context, "durable-chat", named | attributes)
    if request is None or (identity is not None and shown is None):
        return element
    agent, is_readonly = attributes.get("agent"), bool(attributes.get("readonly"))
    return element | without_scripts(request, shown, agent=agent, denied=denied, is_readonly=is_readonly)


@register.inclusion_tag("durable_agents/chat.html", takes_context=True)
def durable_thread_list(context: template.Context, **attributes: object) -> dict[str, object]:
    """Render `<durable-thread-list>` and its script. `for` is the id of the chat that shows the chosen thread."""
    return _element(context, "durable-thread-list", attributes)


@register.simple_tag(takes_context=True)
def durable_agents_importmap(context: template.Context, **more: str) -> SafeString:
    """Render the import map. With this map, scripts of the page can import the package's modules by name.

    Further arguments add modules to the map: `react="myapp/react.js"` adds a static file under the name `react`. A page
    can have only one import map, and the map must come before all module scripts. If `DEBUG` is off, the
    files are minified.
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
        "texts": {key: str(text) for key, text in TEXTS.items()} | translated_errors(),
        "csrf-token": get_token(request) if request is not None else None,
    }
    given = {key.replace("_", "-"): value for key, value in attributes.items()}
    # None and False add no attribute. True adds an attribute without a value. A list or mapping, which may contain lazy
    # translations, is written as JSON.
    written = [
        (key, "" if value is True else _json(value) if isinstance(value, (list, tuple, dict)) else str(value))
        for key, value in (known | given).items()
        if value is not None and value is not False
    ]
    return {"name": name, "attributes": written, "nonce": _nonce(context)}


def _json(value: object) -> str:
    return json.dumps(value, cls=DjangoJSONEncoder)


def _nonce(context: template.Context) -> str:
    """Return the nonce of the page's Content-Security-Policy, or an empty string. Reading the nonce makes Django or
    django-csp add it to the policy.
    """
    request: Any = context.get("request")
    return str(context.get("csp_nonce") or getattr(request, "csp_nonce", None) or "")
