"""The demo's Content-Security-Policy: on every response, sync or async, and kept by our own templates."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.conf import settings
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import include, path

from durable_agents import apps

pytestmark = pytest.mark.django_db

STRICT = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "img-src": ["'self'"],
    "connect-src": ["'self'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
    "base-uri": ["'none'"],
}
TRUSTED_TYPES = {"require-trusted-types-for": ["'script'"], "trusted-types": ["'none'"]}
OUR_TEMPLATES = [Path(apps.__file__).parent / "templates", *map(Path, settings.TEMPLATES[0]["DIRS"])]


def fails(request):
    """Raise what nobody expected."""
    raise RuntimeError("A view that fails.")


def has_a_policy_of_its_own(request):
    """Answer as a download does."""
    return HttpResponse("text", headers={"Content-Security-Policy": "sandbox"})


urlpatterns = [
    path("fails/", fails),
    path("own/", has_a_policy_of_its_own),
    path("", include("demo_project.urls")),
]


@pytest.fixture
def staff(django_user_model):
    """Return a client of somebody who sees everything."""
    client = Client(raise_request_exception=False)
    client.force_login(django_user_model.objects.create_superuser("root"))
    return client


def directives(response):
    """Return the policy of a response: the sources of each directive."""
    pieces = [piece.split() for piece in response.headers["Content-Security-Policy"].split(";")]
    return {name: sources for name, *sources in pieces}


@pytest.mark.parametrize("url", ["/", "/accounts/login/", "/accounts/password_change/", "/agents/schema/"])
def test_pages_have_the_strict_policy(staff, url):
    """Nothing but the site's own files, no inline script or style, and no HTML from strings."""
    response = staff.get(url, headers={"Accept": "text/html"})
    assert response.status_code == 200
    assert directives(response) == STRICT | TRUSTED_TYPES


@pytest.mark.parametrize("url", ["/admin/", "/admin/login/", "/admin/durable_agents/thread/", "/admin/auth/user/add/"])
def test_the_admin_has_the_strict_policy_but_for_trusted_types(staff, url):
    """Django's own admin builds HTML from strings."""
    assert directives(staff.get(url)) == STRICT


@pytest.mark.parametrize("url", ["/", "/nothing/", "/agents/threads/", "/agents/nothing/", "/api-token-auth/"])
def test_redirects_errors_and_data_have_the_strict_policy(client, url):
    """Whoever opens them."""
    assert directives(client.get(url)) == STRICT | TRUSTED_TYPES


def test_djangos_debug_pages_may_keep_their_styles_and_nothing_else(staff, settings):
    """They have them inside; their scripts do not run."""
    settings.DEBUG, settings.ROOT_URLCONF = True, __name__
    for url, status in (("/nothing/", 404), ("/fails/", 500)):
        response = staff.get(url)
        assert (response.status_code, "<style>" in response.content.decode()) == (status, True)
        assert directives(response) == STRICT | TRUSTED_TYPES | {"style-src": ["'self'", "'unsafe-inline'"]}


def test_a_view_that_fails_has_the_strict_policy(staff, settings):
    """Also where nobody wrote a page for it."""
    settings.ROOT_URLCONF = __name__
    response = staff.get("/fails/")
    assert response.status_code == 500
    assert directives(response) == STRICT | TRUSTED_TYPES


def test_a_response_with_a_policy_of_its_own_keeps_it(client, settings):
    """As downloads have, which are stricter."""
    settings.ROOT_URLCONF = __name__
    assert client.get("/own/").headers["Content-Security-Policy"] == "sandbox"


async def test_under_asgi_the_policy_is_the_same():
    """Daphne serves the demo."""
    response = await AsyncClient().get("/accounts/login/")
    assert directives(response) == STRICT | TRUSTED_TYPES


class Inline(HTMLParser):
    """Collects what a policy without inline scripts and styles forbids."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note inline scripts, styles and handlers."""
        given = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in given):
            self.found.append(tag)
        self.found += [name for name in given if name == "style" or name.startswith("on")]
        self.found += [value for value in given.values() if value and value.strip().lower().startswith("javascript:")]


def test_no_template_of_ours_needs_more_than_the_policy_allows():
    """Of the demo, the admin and the API's page."""
    files = [file for folder in OUR_TEMPLATES for file in folder.rglob("*.html")]
    assert len(files) > 10
    assert {file.name: found for file in files if (found := Inline(file.read_text(encoding="utf-8")).found)} == {}
