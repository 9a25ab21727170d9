"""German pages of the admin and the demo have no English word left. What users and models have written stays."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser

import pytest
from django.apps import apps
from django.contrib.admin import site
from django.db.models import CharField, JSONField, TextField
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import override
from django.utils.translation.trans_real import translation

from durable_agents.admin.formatting import all_tokens, money, seconds, tokens
from durable_agents.models import Attachment, AuditEntry, Thread, WorkerProblem
from tests.admin.pages import INBOX, VIEW, listing, page
from tests.api.calls import person

pytestmark = pytest.mark.django_db

IDENTIFIER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
WORD = re.compile(r"[A-Za-zÄÖÜäöüß]{2,}")
FROM_DJANGO = re.compile("(Search|Pagination)( |$)|(- Select an option -|Run)$")
"""Begins texts of Django's own admin that Django 5.2 or 6.1 does not translate."""
ATTRIBUTES = ("aria-label", "title", "placeholder", "alt")


class Texts(HTMLParser):
    """Collects what a reader of a page sees or hears."""

    def __init__(self):
        super().__init__()
        self.found = []
        self._skipped = 0

    def handle_starttag(self, tag, attrs):
        self._skipped += tag in {"script", "style", "code", "pre"}
        self.found += [value for name, value in attrs if name in ATTRIBUTES and value]
        self.found += [dict(attrs)["value"]] if tag == "input" and dict(attrs).get("type") == "submit" else []

    def handle_endtag(self, tag):
        self._skipped -= tag in {"script", "style", "code", "pre"}

    def handle_data(self, data):
        if not self._skipped:
            self.found.append(data)


def words(text):
    return {word.lower() for word in WORD.findall(IDENTIFIER.sub(" ", text))}


COMMON = words("""
the of and is are be not with for this that to when was by no all from change add delete show what who there it as at
or if has have can may must will you your they its their them only also which after before over into out on off yes any
each more most other some such than then very via please open close save view list search
""")
"""Words of any English text."""
SHARED = words("durable agents admin agent all an name not am system version status tags worker was per die in")
"""Words that German pages may have, too."""


def english():
    """Return the words of English texts that are translated, and common ones, without those that German has, too."""
    catalogue = translation("de")._catalog
    entries = [entry for part in catalogue._catalogs for entry in part.items() if entry[0]]
    originals, german = set(COMMON), set(SHARED)
    for original, text in entries:
        originals |= words(original[0] if isinstance(original, tuple) else original)
        german |= words(text)
    return originals - german


def written():
    """Return the words that people, models and code have stored."""
    found = set()
    for model in apps.get_models():
        free = [f.attname for f in model._meta.concrete_fields if isinstance(f, CharField | TextField | JSONField)]
        free = [name for name in free if not model._meta.get_field(name).choices]
        for row in model.objects.values(*free) if free else ():
            found |= words(str(row))
    return found


def english_words_of(client, url):
    response = client.get(url, headers={"accept-language": "de"}, follow=True)
    assert response.status_code == 200
    texts = Texts()
    texts.feed(response.content.decode())
    assert 'lang="de"' in response.content.decode()
    with override("de"):
        left = english() - written()
    return {text.strip() for text in texts.found if words(text) & left and not FROM_DJANGO.match(text.strip())}


@pytest.fixture
def rows(thread):
    """At least one row of each model."""
    AuditEntry.objects.create(thread_id=thread.pk, action="stop_thread", via="admin")
    WorkerProblem.objects.create(holder="h", kind="claims", detail="x", since=timezone.now())
    Attachment.objects.create(thread=thread, filename="a.txt", media_type="text/plain", size=3, file="a")


def test_the_measure_finds_english(reader, approval):
    """In the same page in English."""
    texts = Texts()
    texts.feed(reader.get(reverse(INBOX)).content.decode())
    with override("de"):
        left = english() - written()
    assert len({text for text in texts.found if words(text) & left}) > 10


@pytest.mark.parametrize("question", ["approval", "deferred", "browser", "unknown"])
def test_the_inbox_has_no_english_word(staff, request, question):
    """For those who may decide, and for those who may only look."""
    request.getfixturevalue(question)
    for permissions in (VIEW, (*VIEW, "change_toolcall")):
        assert english_words_of(staff(*permissions), reverse(INBOX)) == set()


def test_the_lists_and_pages_of_the_admin_have_no_english_word(rows, staff):
    more = ("change_toolcall", "change_thread", "add_thread", "view_auditentry", "view_workerproblem")
    client = staff(*VIEW, *more)
    urls = [reverse("admin:index")]
    for model in (model for model in site._registry if model._meta.app_label == "durable_agents"):
        assert model.objects.exists(), model
        urls += [listing(model), *(page(row) for row in model.objects.all())]
    assert {url: found for url in urls if (found := english_words_of(client, url))} == {}


def test_numbers_are_written_as_in_german():
    thread = Thread(input_tokens=1234, output_tokens=5)
    start = datetime(2026, 11, 30, tzinfo=UTC)
    shown = {}
    for language in ("en", "de"):
        with override(language):
            lines = [tokens(thread), all_tokens(thread), seconds(start, start + timedelta(seconds=1234.5))]
            shown[language] = [*lines, money(Decimal("1234.5")), money(Decimal("0.00002"))]
    assert shown["en"] == ["1,234 / 5", "1,239", "1,234.5 s", "$1,234.5000", "$0.00002"]
    assert shown["de"] == ["1.234 / 5", "1.239", "1.234,5 s", "$1.234,5000", "$0,00002"]


def test_the_demo_has_no_english_word():
    client = Client()
    assert english_words_of(client, reverse("login")) == set()
    client.force_login(person("demo", is_staff=True))
    for name in ("chat", "examples", "react"):
        assert english_words_of(client, reverse(name)) == set(), name


def test_errors_of_the_chat_are_german():
    """In English, they are more precise."""
    client = Client()
    client.force_login(person("ada"))
    answer = client.get("/agents/threads/unknown/", headers={"accept-language": "de"}).json()
    assert answer == {"code": "thread_not_found", "detail": "Sie dürfen diese Unterhaltung nicht sehen."}
    assert "There is no thread" in client.get("/agents/threads/unknown/").json()["detail"]
