"""The labels of the demo's pages, which screen readers say and which appear below a pointer."""

from html.parser import HTMLParser

import pytest
from django.contrib.auth.models import User
from django.test import Client

pytestmark = [pytest.mark.django_db, pytest.mark.urls("demo_project.urls")]

LABELS = {"aria-label", "title", "placeholder", "alt", "data-title"}


class Labels(HTMLParser):
    """Collect the labels of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the labels of a tag."""
        self.found += [value for name, value in attrs if name in LABELS and value]


@pytest.mark.parametrize("path", ["/", "/examples/", "/examples/react/", "/accounts/login/"])
def test_a_label_contains_words_only(client: Client, path: str) -> None:
    """No quotation mark or backslash of the template."""
    if path != "/accounts/login/":
        client.force_login(User.objects.create_superuser("root"))
    labels = Labels()
    labels.feed(client.get(path).content.decode())
    assert path == "/examples/" or labels.found
    assert [label for label in labels.found if set(label) & set('"\\')] == []
