"""How often a caller may come: counted for each user apart, refused with a code that says which limit it was."""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from types import SimpleNamespace
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.test import RequestFactory
from rest_framework.throttling import UserRateThrottle

from durable_agents import create_thread, throttles
from durable_agents.api.views import ThreadListView
from durable_agents.exceptions import RequestsThrottledError, SendsThrottledError
from durable_agents.models import Message, Thread
from tests.api.calls import Api, person, problem
from tests.api.policies import GuestPolicy

pytestmark = pytest.mark.django_db
HOUR = 3600


@pytest.fixture(autouse=True)
def _empty_cache():
    cache.clear()  # before any test names another one: that of a Redis would clear all that is in it


@pytest.fixture
def throttle(settings):
    """Return a function that sets the rates."""

    def throttle(**rates):
        settings.DURABLE_AGENTS = {"THROTTLES": rates}

    return throttle


def asking(user):
    """Return a request of this user's."""
    request = RequestFactory().get("/")
    request.user = user
    return request


def test_requests_over_the_limit_are_refused_and_told_when_to_come_again(api, stranger, agent, throttle, settings):
    """Whatever they ask for; others are not concerned."""
    settings.LANGUAGE_CODE = "en"  # translations have no numbers
    throttle(requests="3/hour")
    assert [api.get(path).status_code for path in ("threads/", "agents/", "threads/x/")] == [200, 200, 404]
    refused = api.get("threads/")
    assert problem(refused) == (429, "requests_throttled")
    assert f"Wait {refused['Retry-After']} s" in refused.json()["detail"]
    assert 0 < int(refused["Retry-After"]) <= 2 * HOUR
    assert problem(api.post("threads/", {"agent": "tested"})) == (429, "requests_throttled")
    assert not Thread.objects.exists()
    assert stranger.get("threads/").status_code == 200


def test_what_starts_or_steers_a_run_has_a_limit_of_its_own(api, me, agent, throttle):
    """Reading, stopping and making empty threads go on; what is refused leaves nothing."""
    throttle(sends="4/hour")
    thread = create_thread(agent, owner=me)
    path = f"threads/{thread.pk}/"
    begins = [
        ("threads/", {"agent": "tested", "prompt": "Hi"}),
        ("threads/", {"agent": "tested", "parts": [{"type": "text", "text": "Hi"}]}),
        (f"{path}messages/", {"prompt": "Hi"}),
        (f"{path}resume/", None),
    ]
    assert [api.post(*begin).status_code for begin in begins] == [201, 201, 202, 200]
    before = Thread.objects.count(), Message.objects.count()
    for begin in begins:
        refused = api.post(*begin)
        assert problem(refused) == (429, "sends_throttled")
        assert int(refused["Retry-After"]) > 0
    assert (Thread.objects.count(), Message.objects.count()) == before
    assert api.post("threads/", {"agent": "tested"}).status_code == 201
    assert [api.get(path).status_code, api.post(f"{path}stop/").status_code] == [200, 200]


def test_a_body_that_is_none_is_told_so_before_it_counts(api, agent, throttle):
    """As without a limit."""
    throttle(sends="1/hour")
    assert [problem(api.post("threads/", body)) for body in ("{", "[]", "")] == [
        (400, "parse_error"),
        (400, "invalid"),
        (400, "invalid"),
    ]
    assert api.post("threads/", {"agent": "tested", "prompt": "Hi"}).status_code == 201


def test_too_many_running_threads_are_told_by_their_own_code(api, agent, settings):
    """What to do about it is in the detail."""
    settings.DURABLE_AGENTS = {"MAX_RUNNING_PER_OWNER": 1}
    settings.LANGUAGE_CODE = "en"  # the translation is shorter
    assert api.post("threads/", {"agent": "tested", "prompt": "Hi"}).status_code == 201
    refused = api.post("threads/", {"agent": "tested", "prompt": "Hi"})
    assert problem(refused) == (429, "too_many_running")
    assert int(refused["Retry-After"]) > 0
    assert "stop one" in refused.json()["detail"]


def test_throttle_classes_of_the_project_are_kept(api, agent, throttle, monkeypatch):
    """Ours are added to them."""

    class Twice(UserRateThrottle):
        rate = "2/hour"

    monkeypatch.setattr(ThreadListView, "throttle_classes", (Twice,))
    throttle(requests="100/hour")
    assert [api.get("threads/").status_code for _ in range(3)] == [200, 200, 429]
    assert problem(api.get("threads/")) == (429, "throttled")


def test_anonymous_callers_are_counted_by_their_address(agent, settings):
    """Also those who come for the schema, and with any text for an address."""
    settings.DURABLE_AGENTS = {"THROTTLES": {"requests": "1/hour"}, "POLICY": f"{__name__}.{GuestPolicy.__name__}"}
    guest = Api()
    for path in ("agents/", "schema/"):
        for address in ("10.0.0.1", "10.0.0.2", "not an address\x7f" * 50):
            cache.clear()
            options = {"REMOTE_ADDR": address}
            assert guest.client.get(f"/agents/{path}", **options).status_code == 200
            assert problem(guest.client.get(f"/agents/{path}", **options)) == (429, "requests_throttled")
            assert guest.client.get(f"/agents/{path}", REMOTE_ADDR="10.0.0.9").status_code == 200


class Clock:
    """The time, as the cache sees it too."""

    now = 1_700_000_000.0

    def time(self):
        """Return it."""
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that stands still."""
    clock = Clock()
    monkeypatch.setattr("time.time", clock.time)
    return clock


def test_a_period_begins_with_the_first_and_ends_when_it_is_said(me, throttle, clock):
    """Not before, and those who are refused meanwhile do not put it off."""
    throttle(sends="3/min")
    start = clock.now
    for offset in (0, 20, 30):
        clock.now = start + offset
        throttles.count("sends", asking(me))
    for offset in (31, 45, 59.9):
        clock.now = start + offset
        with pytest.raises(SendsThrottledError) as caught:
            throttles.count("sends", asking(me))
        assert clock.now + caught.value.retry_after_seconds == pytest.approx(start + 60)
    clock.now = start + 60
    for _ in range(3):
        throttles.count("sends", asking(me))
    with pytest.raises(SendsThrottledError):
        throttles.count("sends", asking(me))


@pytest.mark.parametrize("rate", ["1/s", "1/min", "7/m", "600/hour", "1000/day"])
def test_whoever_comes_as_often_as_allowed_never_waits(me, throttle, clock, rate):
    """Evenly, or all at once and then again when told."""
    throttle(requests=rate)
    asked = throttles.rate_of(rate)
    for _ in range(2 * asked.count):
        throttles.count("requests", asking(me))
        clock.now += 1.000001 * asked.seconds / asked.count
    clock.now += asked.seconds
    for _ in range(3):
        for _ in range(asked.count):
            throttles.count("requests", asking(me))
        with pytest.raises(RequestsThrottledError) as caught:
            throttles.count("requests", asking(me))
        clock.now += ceil(caught.value.retry_after_seconds)


def test_of_those_who_come_at_once_no_more_get_in_than_allowed(me, throttle):
    """The cache itself decides who takes a place."""
    throttle(requests="5/hour")

    def gets_in(_):
        try:
            throttles.count("requests", asking(me))
        except RequestsThrottledError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(gets_in, range(200))) == 5


@pytest.mark.parametrize(
    "throttles", [{"requests": rate, "sends": rate} for rate in ("often", "0/min", 5, None)] + ["600/min", 5, []]
)
def test_a_rate_that_is_none_stops_nobody(api, agent, settings, throttles):
    """The system checks say it; no request fails for it."""
    settings.DURABLE_AGENTS = {"THROTTLES": throttles}
    assert api.post("threads/", {"agent": "tested", "prompt": "Hi"}).status_code == 201


class BrokenCache:
    """A cache that does not answer."""

    def __getattr__(self, name):
        raise ConnectionError


def test_a_cache_that_does_not_answer_stops_nobody(api, agent, throttle, monkeypatch, caplog):
    """It is logged."""
    throttle(requests="1/hour")
    monkeypatch.setattr(throttles, "cache", BrokenCache())
    assert [api.get("threads/").status_code for _ in range(2)] == [200, 200]
    assert "throttle" in {getattr(record, "action", "") for record in caplog.records}


BACKENDS = ["db.Database", "dummy.Dummy", "filebased.FileBased", "locmem.LocMem", "redis.Redis"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_cache_of_django_counts(throttle, settings, tmp_path, backend):
    """But the one that keeps nothing, which lets everybody in."""
    redis = os.environ.get("TEST_REDIS_URL")
    if backend.startswith("redis") and not redis:
        pytest.skip("TEST_REDIS_URL names no Redis")
    location = {"db": "throttles", "filebased": str(tmp_path), "redis": redis}.get(backend.partition(".")[0], "")
    settings.CACHES = {"default": {"BACKEND": f"django.core.cache.backends.{backend}Cache", "LOCATION": location}}
    if backend.startswith("db"):
        call_command("createcachetable", verbosity=0)
    throttle(sends="2/min")
    asker = SimpleNamespace(user=SimpleNamespace(pk=uuid4(), is_authenticated=True))
    passed = 0
    for _ in range(4):
        with contextlib.suppress(SendsThrottledError):
            throttles.count("sends", asker)
            passed += 1
    assert passed == (4 if backend.startswith("dummy") else 2)


def test_users_whose_ids_are_any_text_have_keys_that_any_cache_takes(throttle):
    """Memcached takes no blanks."""
    throttle(sends="1/hour")
    for pk in ("a b", "a c", "ä\n", "0b6ecf4e-0f4f-4a25-9d5e-3d4c1e0f2b6a"):
        asker = SimpleNamespace(user=SimpleNamespace(pk=pk, is_authenticated=True))
        throttles.count("sends", asker)
        with pytest.raises(SendsThrottledError):
            throttles.count("sends", asker)


def test_two_tabs_of_a_user_share_a_counter(me, agent, throttle):
    """It is the user who is counted, however signed in."""
    throttle(requests="2/hour")
    assert [Api(me).get("agents/").status_code for _ in range(3)] == [200, 200, 429]
    assert Api(person("other")).get("agents/").status_code == 200


def key_of(request):
    """Return by what a visitor's request is counted."""
    request.user = None
    return throttles.key_of(request)


@pytest.mark.parametrize(
    ("proxies", "counted"),
    [(None, "192.0.2.1"), (0, "192.0.2.1"), (1, "198.51.100.7"), (2, "203.0.113.9")],
)
def test_a_visitors_address_is_the_one_that_known_proxies_saw(settings, proxies, counted):
    """What stands further to the left in the header is the visitor's own invention."""
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": proxies}
    forwarded = "10.9.8.7, 203.0.113.9, 198.51.100.7"
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_FOR=forwarded)

    itself = RequestFactory().get("/", REMOTE_ADDR=counted)
    seen = key_of(request)
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": None}
    assert seen == key_of(itself)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("198.51.100.7:4001", "198.51.100.7:4002"),
        ("198.51.100.7", "198.51.100.7:4001"),
        ("198.51.100.7", "::ffff:198.51.100.7"),
        ("[2001:db8:1:2::1]:4001", "2001:db8:1:2::1"),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"),
    ],
)
@pytest.mark.parametrize("proxies", [None, 1])
def test_a_visitor_is_one_whatever_port_or_address_of_theirs_comes(settings, proxies, one, other):
    """Some proxies write the port too; a site that has IPv6 has any number of addresses."""
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": proxies}
    name = "REMOTE_ADDR" if proxies is None else "HTTP_X_FORWARDED_FOR"
    first, second, third = (RequestFactory().get("/", **{name: it}) for it in (one, other, "2001:db8:1:3::1"))

    assert key_of(first) == key_of(second) != key_of(third)
