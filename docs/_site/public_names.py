"""List the public names of the Python package, and read from the pages which of them have an entry."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import django
from django.conf import settings

DOCS = Path(__file__).resolve().parents[1]
EXPORTING = ("durable_agents", "durable_agents.llm", "durable_agents.testing")
"""Modules whose ``__all__`` is public."""
OTHERS = (
    "durable_agents.actors.Person",
    "durable_agents.exceptions.ErrorKind",
    "durable_agents.llm.types.Message",
    "durable_agents.models.Role",
    "durable_agents.models.StreamState",
    "durable_agents.models.ThreadStatus",
    "durable_agents.models.ToolCallStatus",
    "durable_agents.models.ToolKind",
    "durable_agents.policies.Asker",
    "durable_agents.policies.OwnerPolicy",
    "durable_agents.policies.can_decide",
    "durable_agents.policies.public_threads",
    "durable_agents.pytest_plugin.run_until_idle",
    "durable_agents.pytest_plugin.scripted_model",
    "durable_agents.reading.Message",
    "durable_agents.reading.MessagesWithStream",
    "durable_agents.reading.OpenStream",
    "durable_agents.routing.websocket_urlpatterns",
    "durable_agents.templatetags.durable_agents.durable_agents_importmap",
    "durable_agents.templatetags.durable_agents.durable_chat",
    "durable_agents.templatetags.durable_agents.durable_thread_list",
    "durable_agents.urls.urlpatterns",
)
"""Public names of other modules, beside all errors and all models that are not internal."""
INTERNAL_MODELS = {"Command", "DeliveryReport", "Pool", "Ticket", "WorkerProblem"}
HEADED = {"reference/python.md": "durable_agents", "reference/database.md": "durable_agents.models"}
"""Pages on which a heading that consists of a public name is the entry of that name, with the name's module."""
HEADING = re.compile(r"^###? (?:The arguments of )?`?(\w+)`?$", re.MULTILINE)
DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


def set_up_django() -> None:
    """Configure Django, unless that is done, with as little as the package's modules need to be imported."""
    if not settings.configured:
        settings.configure(
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "durable_agents"],
            SECRET_KEY="documentation",  # noqa: S106 - signs nothing
            USE_TZ=True,
        )
        django.setup()


def public_names() -> set[str]:
    """Return the full names of everything that is public. Django must be set up."""
    exported = {f"{module}.{name}" for module in EXPORTING for name in importlib.import_module(module).__all__}
    return {*exported, *OTHERS, *_errors(), *_models()}


def _errors() -> Iterator[str]:
    """Yield the errors that a caller can get but that ``durable_agents`` does not export."""
    module = importlib.import_module("durable_agents.exceptions")
    exported = importlib.import_module("durable_agents").__all__
    for name, value in vars(module).items():
        if inspect.isclass(value) and issubclass(value, module.DurableAgentsError) and name not in exported:
            yield f"durable_agents.exceptions.{name}"


def _models() -> Iterator[str]:
    from django.apps import apps  # noqa: PLC0415 - the registry is ready only now

    for model in apps.get_app_config("durable_agents").get_models():
        if model.__name__ not in INTERNAL_MODELS:
            yield f"durable_agents.models.{model.__name__}"


def entries(page: str, text: str) -> set[str]:
    """Return the full names that have an entry on a page. ``page`` is its path in ``docs``, ``text`` its Markdown."""
    found = set(DIRECTIVE.findall(text))
    if page in HEADED:
        headed = {f"{HEADED[page]}.{name}" for name in HEADING.findall(text)}
        found |= {name for name in headed if _exists(name)}
    return found | {twin for name in found if _exists(twin := _twin(name))}


def _twin(name: str) -> str:
    """Return the full name of a function's async version, which has no entry of its own."""
    module, _, function = name.rpartition(".")
    return f"{module}.a{function}"


def _exists(full_name: str) -> bool:
    module, _, name = full_name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name)
    except ImportError:
        return False


def all_entries() -> dict[str, str]:
    """Return the page of each name that has an entry, by the name."""
    pages = sorted((DOCS / "reference").glob("*.md"))
    paths = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in pages}
    return {name: page for page, text in paths.items() for name in entries(page, text)}
