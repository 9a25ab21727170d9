"""Every place where something that must not be known could turn up: tables, answers of the API, pages of the admin."""

from collections.abc import Iterator

from django.apps import apps
from django.test import Client
from django.urls import reverse

from durable_agents.models import Thread
from tests.api.calls import Api, person

READ = ("", "messages/", "messages/?streams=1", "tool-calls/", "usage/", "export/")
"""What there is to be read below a thread, over REST."""


def rows(app: str = "") -> Iterator[tuple[str, str]]:
    """Yield every row of every table, or of those of one app, as a text with the name of its model."""
    for model in apps.get_app_config(app).get_models() if app else apps.get_models():
        yield from ((model._meta.label, str(row)) for row in model._default_manager.values())


def answers(thread: Thread) -> Iterator[tuple[str, str]]:
    """Yield what the owner of a thread can read over REST."""
    api = Api(thread.owner)
    for path in ("agents/", "threads/", "schema/", *(f"threads/{thread.pk}/{path}" for path in READ)):
        yield path, api.client.get(f"/agents/{path}").content.decode()


def pages() -> Iterator[tuple[str, str]]:
    """Yield the list, and the page of each row, of every model in the admin, and the inbox."""
    root = Client()
    root.force_login(person("root", is_staff=True, is_superuser=True))
    addresses = [reverse("admin:durable_agents_toolcall_inbox")]
    for model in apps.get_app_config("durable_agents").get_models():
        name = f"admin:durable_agents_{model._meta.model_name}"
        if model._meta.model_name in {"command", "attachment", "ticket", "deliveryreport"}:
            continue
        addresses.append(reverse(f"{name}_changelist"))
        addresses += [
            reverse(f"{name}_change", args=[pk]) for pk in model._default_manager.values_list("pk", flat=True)
        ]
    for address in addresses:
        response = root.get(address)
        assert response.status_code == 200, address
        yield address, response.content.decode()


def places_with(thread: Thread, *secrets: str) -> list[tuple[str, str]]:
    """Return where one of these texts is found, with its surroundings."""
    found = [*rows(), *answers(thread), *pages()]
    return [(place, _around(secret, text)) for place, text in found for secret in secrets if secret in text]


def _around(secret: str, text: str) -> str:
    start = max(text.index(secret) - 80, 0)
    return text[start : start + len(secret) + 160]
