"""What the system checks say, and that they say nothing of a project that is set up as the documents have it."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.checks import Error, run_checks
from rest_framework.permissions import IsAuthenticated

from durable_agents import Agent, checks, tool
from durable_agents.agents import registry
from durable_agents.conf import Config
from durable_agents.task_queue import redis_servers
from tests.processes import ROOT


def test_the_reference_lists_every_check():
    """Those of the module's docstring, word by word the same ids."""
    page = (ROOT / "docs" / "reference" / "checks.md").read_text(encoding="utf-8")
    ids = re.findall(r"durable_agents\.([EW]\d+)", checks.__doc__)
    assert re.findall(r"^\| `durable_agents\.([EW]\d+)`", page, re.MULTILINE) == ids
    used = re.findall(r'id="durable_agents\.([EW]\d+)"', Path(checks.__file__).read_text(encoding="utf-8"))
    assert set(used) == set(ids)


def said(messages):
    """Return the ids of messages, each of which must say what to do."""
    assert all(message.hint for message in messages)
    return [message.id.removeprefix("durable_agents.") for message in messages]


def pasted(message, **settings):
    """Run the lines of a hint at the end of these settings; return what they are then. Every hint has such lines."""
    lines = [line[4:] for line in message.hint.splitlines() if line.startswith("    ")]
    assert lines, message.hint
    exec("\n".join(lines), {}, settings)
    return settings


def a_database(monkeypatch, vendor, **options):
    """Let the threads be in a database of this kind."""
    database = SimpleNamespace(
        vendor=vendor, display_name=vendor.title(), alias="default", settings_dict={"OPTIONS": options}
    )
    monkeypatch.setattr(checks, "connections", {"default": database})


@pytest.mark.django_db  # some of Django's own checks ask the database, from Django 6.1 on
def test_a_project_that_is_set_up_well_hears_nothing():
    """The project of the tests is."""
    assert [message for message in run_checks() if str(message.id).startswith("durable_agents.")] == []


@pytest.mark.parametrize(("key", "hint"), [("LEASE_SECOND", "LEASE_SECONDS"), ("policy", "POLICY"), ("XYZ", "POOLS")])
def test_an_unknown_key_is_an_error_that_names_the_one_meant(settings, key, hint):
    """A setting that silently does nothing is worse than none."""
    settings.DURABLE_AGENTS = {key: 1}
    [message] = checks.check_keys()
    assert isinstance(message, Error)
    assert key in message.msg
    assert hint in message.hint


@pytest.mark.parametrize("vendor", ["mysql", "oracle", "mssql"])
def test_another_database_is_an_error(monkeypatch, vendor):
    """It would run, and sooner or later start a thread twice."""
    a_database(monkeypatch, vendor)
    assert said(checks.check_database()) == ["E002"]


def test_postgresql_needs_nothing_said(monkeypatch):
    """As it comes."""
    a_database(monkeypatch, "postgresql")
    assert checks.check_database() == []


@pytest.mark.parametrize("missing", [*checks.SQLITE_OPTIONS, ""])
def test_sqlite_needs_three_options_and_the_warning_has_the_lines_to_paste(monkeypatch, missing):
    """With all three it says nothing."""
    options = {name: value for name, value in checks.SQLITE_OPTIONS.items() if name != missing}
    a_database(monkeypatch, "sqlite", **options)
    messages = checks.check_database()
    assert said(messages) == (["W001"] if missing else [])
    for message in messages:
        after = pasted(message, DATABASES={"default": {"ENGINE": "sqlite3", "OPTIONS": options}})
        assert after["DATABASES"]["default"]["OPTIONS"] == checks.SQLITE_OPTIONS


def test_what_a_project_has_set_for_its_sqlite_is_kept(monkeypatch):
    """Beside what is missing."""
    a_database(monkeypatch, "sqlite", isolation_level=None, init_command="PRAGMA cache_size=-20000;")
    [message] = checks.check_database()
    options = pasted(message, DATABASES={"default": {}})["DATABASES"]["default"]["OPTIONS"]
    assert options["isolation_level"] is None
    assert options["init_command"] == "PRAGMA cache_size=-20000; " + checks.SQLITE_OPTIONS["init_command"]


@pytest.mark.parametrize(
    ("pools", "q_cluster", "expected"),
    [
        ({"agents": {"cluster": "nowhere"}}, {"name": "site"}, ["E003"]),
        ({"agents": {"cluster": "site"}}, {"name": "site"}, []),
        ({"agents": {"cluster": "heavy"}}, {"name": "site", "ALT_CLUSTERS": {"heavy": {}}}, []),
        ({"agents": {"cluster": "main"}}, {"name": "site", "cluster_name": "main"}, []),
        ({"agents": {"cluster": "default"}}, {}, []),
        ({"slow": {"limit": 3}}, {"name": "site"}, []),
    ],
)
def test_a_pool_needs_a_cluster_that_exists(settings, pools, q_cluster, expected):
    """Else nobody works in it."""
    settings.DURABLE_AGENTS = {"POOLS": pools}
    settings.Q_CLUSTER = q_cluster
    messages = checks.check_pools()
    assert said(messages) == expected
    for message in messages:
        settings.Q_CLUSTER = pasted(message, Q_CLUSTER={**q_cluster})["Q_CLUSTER"]
        assert checks.check_pools() == []


def test_agents_and_tools_need_pools_that_are_configured(settings):
    """A typing error in a pool's name would leave threads waiting."""

    @tool(pool="slwo")
    def work() -> None:
        """Work."""

    Agent("checked", model="openai/x", pool="slow", tools=[work])
    try:
        settings.DURABLE_AGENTS = {"POOLS": {"slow": {"limit": 1}}}
        [message] = checks.check_pools()
        assert message.msg.split("'")[1] == "slwo"
        settings.DURABLE_AGENTS = pasted(message, DURABLE_AGENTS=settings.DURABLE_AGENTS)["DURABLE_AGENTS"]
        assert checks.check_pools() == []
        settings.DURABLE_AGENTS = {}
        assert said(checks.check_pools()) == ["E004", "E004"]
    finally:
        registry.remove("checked")


@pytest.mark.parametrize("path", ["myapp.Policy", "durable_agents.policies.NoPolicy", "nonsense"])
def test_a_policy_that_is_not_there_is_an_error(settings, path):
    """Said at the start, not at the first request."""
    settings.DURABLE_AGENTS = {"POLICY": path}
    [message] = checks.check_policy()
    assert message.id == "durable_agents.E005"
    settings.DURABLE_AGENTS = pasted(message, DURABLE_AGENTS={"POLICY": path})["DURABLE_AGENTS"]
    assert checks.check_policy() == []


class Lax:
    """A policy that forgets to say whose threads there are."""

    def allows(self, *_, **__):
        return True


def test_a_policy_that_lacks_a_method_is_an_error(settings):
    """It names what is missing."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.Lax"}
    [message] = checks.check_policy()
    assert "filter, owner_and_scope, context" in message.msg
    assert "allows" not in message.msg


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, "many") for key in checks.RULES if key not in {"POLICY", "DEFAULT_AGENT", "MODEL_DOOR"}),
        *((key, -1) for key in checks.RULES),
        *((key, True) for key in checks.RULES),
        *((key, None) for key in ("POLICY", "LEASE_SECONDS", "POOLS", "USAGE_ON_DELETE")),
        *(("POOLS", pools) for pools in ([], {"agents": 5}, {"agents": {"limit": 0}}, {"agents": {"limits": 5}})),
        ("POOLS", {"agents": {"cluster": 3}}),
        ("LEASE_SECONDS", 0.5),
        ("TOOL_THREADS", 2.5),
        *(("THROTTLES", {"requests": rate}) for rate in (5, "often", "0/min", "5/", "/min", "5/week", "-1/s", None)),
        *(("THROTTLES", throttles) for throttles in ({"request": "5/min"}, ["5/min"], {5: "5/min"})),
    ],
)
def test_a_value_that_cannot_be_meant_is_an_error_with_the_default_to_paste(settings, key, value):
    """And the other checks go on."""
    settings.DURABLE_AGENTS = {key: value}
    [message] = checks.check_values()
    assert message.id == "durable_agents.E006"
    assert (repr(value) in message.msg) == (key != "APPROVAL_KEYS")  # secrets are shown nowhere
    said([*checks.check_pools(), *checks.check_policy(), *checks.check_keys(), *checks.check_queue()])
    settings.DURABLE_AGENTS = pasted(message, DURABLE_AGENTS={key: value})["DURABLE_AGENTS"]
    assert checks.check_values() == []


@pytest.mark.parametrize("value", [["POLICY"], "POLICY", 3])
def test_settings_that_are_no_dict_are_an_error(settings, value):
    """Said in words."""
    settings.DURABLE_AGENTS = value
    [message] = checks.check_values()
    assert pasted(message)["DURABLE_AGENTS"] == {}
    assert checks.check_keys() == []


@pytest.mark.parametrize("value", [None, {}])
def test_no_settings_are_good_settings(settings, value):
    """Every key has a default, and every default is good."""
    settings.DURABLE_AGENTS = value
    assert checks.check_values() == []
    defaults = {field.name.upper(): field.default for field in fields(Config) if field.name != "pools"}
    settings.DURABLE_AGENTS = defaults | {"POOLS": {"agents": {"cluster": None, "limit": 100}}}
    assert set(settings.DURABLE_AGENTS) == set(checks.RULES)
    assert checks.check_values() == []


@pytest.mark.parametrize(
    ("given", "installed"), [({"orm": "other"}, True), ({"redis": {}}, False), ({"name": "x"}, False)]
)
def test_a_broker_that_cannot_work_is_an_error(settings, monkeypatch, given, installed):
    """A database that there is not; a Redis without its library."""
    monkeypatch.setattr(checks, "find_spec", lambda _: object() if installed else None)
    settings.Q_CLUSTER = given
    [message] = checks.check_queue()
    assert message.id == "durable_agents.E007"
    settings.Q_CLUSTER = pasted(message, Q_CLUSTER=given)["Q_CLUSTER"]
    assert checks.check_queue() == []


def test_no_queue_at_all_is_warned_of(settings):
    """django-q2 would look for a Redis on this host."""
    settings.Q_CLUSTER = {}
    [message] = checks.check_queue()
    assert message.id == "durable_agents.W008"
    settings.Q_CLUSTER = pasted(message)["Q_CLUSTER"]
    assert (settings.Q_CLUSTER["orm"], settings.Q_CLUSTER["name"]) == ("default", "demo_project")
    assert checks.check_queue() == []


def test_an_app_that_is_missing_is_an_error(settings):
    """It names each."""
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name not in {"channels", "rest_framework"}]
    [message] = checks.check_apps()
    assert message.id == "durable_agents.E008"
    after = pasted(message, INSTALLED_APPS=[])["INSTALLED_APPS"]
    assert after == ["channels", "rest_framework"]


def test_a_project_without_the_queue_is_told_so_and_not_by_a_traceback(child_env):
    """Also by the command that people run first."""
    code = (
        "import django\n"
        "from tests import settings as project\n"
        "project.INSTALLED_APPS = [name for name in project.INSTALLED_APPS if name != 'django_q']\n"
        "django.setup()\n"
        "from durable_agents.checks import check_apps\n"
        "print(*[message.msg for message in check_apps()])"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=ROOT, env=child_env, capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "INSTALLED_APPS lacks django_q.", ended.stderr


@pytest.mark.urls("tests.checks.urls")
def test_public_agents_without_a_url_or_asgi_are_warned_of(settings):
    """Those that only Python uses need neither."""
    del settings.ASGI_APPLICATION
    Agent("checked", model="openai/x", public=True)
    others = [agent for agent in registry.public() if agent.name != "checked"]
    try:
        [without_asgi], [without_url] = checks.check_asgi(), checks.check_urls()
        assert said([without_asgi, without_url]) == ["W006", "W007"]
        assert pasted(without_asgi)["ASGI_APPLICATION"] == "tests.checks.asgi.application"
        assert 'include("durable_agents.urls")' in without_url.hint
        for agent in [*others, registry.get("checked")]:
            registry.remove(agent.name)
        assert [*checks.check_asgi(), *checks.check_urls()] == []
    finally:
        registry.remove("checked")
        for agent in others:
            registry.add(agent)


def test_files_need_a_place_that_processes_share(settings):
    """Django's own is the directory in which one is started."""
    settings.MEDIA_ROOT = ""
    [message] = checks.check_files()
    assert said([message]) == ["W010"]
    settings.MEDIA_ROOT = pasted(message)["MEDIA_ROOT"]
    assert checks.check_files() == []


@pytest.mark.parametrize(
    ("q_cluster", "expected"),
    [({"sync": True}, ["W002"]), ({"scheduler": False}, ["W003"]), ({"sync": False, "scheduler": True}, []), ({}, [])],
)
def test_a_queue_that_is_none_is_warned_of(settings, q_cluster, expected):
    """Tests of a project may want it so."""
    settings.Q_CLUSTER = {"name": "site", **q_cluster}
    messages = checks.check_queue()
    assert said(messages) == expected
    for message in messages:
        settings.Q_CLUSTER = pasted(message, Q_CLUSTER=settings.Q_CLUSTER)["Q_CLUSTER"]
    assert checks.check_queue() == []


def test_in_production_the_in_memory_layer_is_warned_of(settings):
    """It works, by polling."""
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    [message] = checks.check_channel_layer()
    assert message.id == "durable_agents.W004"
    settings.CHANNEL_LAYERS = pasted(message)["CHANNEL_LAYERS"]
    assert [*checks.check_channel_layer(), *checks.check_redis_timeouts()] == []


@pytest.mark.parametrize(
    ("hosts", "with_7", "with_8"),
    [
        (["redis://127.0.0.1:6379/0"], ["W016"], ["W005"]),
        ([("127.0.0.1", 6379)], ["W016"], ["W005"]),
        ([{"address": "redis://127.0.0.1:6379/0"}], ["W016"], ["W005"]),
        ([{"address": "redis://127.0.0.1:6379/0", "socket_timeout": None}], ["W016"], ["W016"]),
        ([{"address": "redis://127.0.0.1:6379/0", "socket_timeout": 5}], ["W005"], ["W005"]),
        (["redis://127.0.0.1:6379/0?socket_timeout=3"], ["W005"], ["W005"]),
        (["redis://127.0.0.1:6379/0?socket_timeout=10"], [], []),
        ([{"address": "redis://127.0.0.1:6379/0", "socket_timeout": 10}], [], []),
        ([{"sentinels": [("127.0.0.1", 26379)], "master_name": "main", "socket_timeout": 10}], [], []),
    ],
)
@pytest.mark.parametrize("installed", ["7.1.0", "8.1.0"])
def test_a_redis_layer_whose_timeout_is_too_short_or_missing_is_warned_of(
    settings, monkeypatch, hosts, with_7, with_8, installed
):
    """Redis-py 8 has one of its own, which is as long as the layer waits."""
    monkeypatch.setattr(redis_servers, "version", lambda _: installed)
    settings.Q_CLUSTER = {"name": "site", "orm": "default"}
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": hosts}}
    }
    messages = checks.check_redis_timeouts()
    assert said(messages) == (with_8 if installed == "8.1.0" else with_7)
    for message in messages:
        settings.CHANNEL_LAYERS = pasted(message, CHANNEL_LAYERS=settings.CHANNEL_LAYERS)["CHANNEL_LAYERS"]
    assert checks.check_redis_timeouts() == []


@pytest.mark.parametrize(("timeout", "expected"), [(None, ["W016"]), (3, []), (10, [])])
def test_a_pub_sub_layer_needs_a_timeout_of_any_length(settings, timeout, expected):
    """No read of it blocks."""
    settings.Q_CLUSTER = {"name": "site", "orm": "default"}
    hosts = [{"address": "redis://127.0.0.1:6379/0", "socket_timeout": timeout}]
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": checks.LAYER_BACKEND, "CONFIG": {"hosts": hosts}}}
    messages = checks.check_redis_timeouts()
    assert said(messages) == expected
    for message in messages:
        settings.CHANNEL_LAYERS = pasted(message, CHANNEL_LAYERS=settings.CHANNEL_LAYERS)["CHANNEL_LAYERS"]
    assert checks.check_redis_timeouts() == []


@pytest.mark.parametrize(
    ("broker", "with_7", "with_8"),
    [
        ({"redis": "redis://127.0.0.1:6379/0"}, ["W016"], []),
        ({"redis": {"host": "127.0.0.1"}}, ["W016"], []),
        ({"redis": {"host": "127.0.0.1", "socket_timeout": None}}, ["W016"], ["W016"]),
        ({"redis": {"host": "127.0.0.1", "socket_timeout": 1}}, ["W016"], ["W016"]),
        ({"redis": {"host": "127.0.0.1", "socket_timeout": 10}}, [], []),
        ({"orm": "default"}, [], []),
        (None, [], []),
        ({"sqs": {"aws_region": "eu-central-1"}}, [], []),
    ],
)
@pytest.mark.parametrize("installed", ["7.1.0", "8.1.0"])
def test_a_redis_broker_whose_timeout_is_too_short_or_missing_is_warned_of(
    settings, monkeypatch, broker, with_7, with_8, installed
):
    """A queue elsewhere has no such timeout, and a missing Q_CLUSTER is another check's problem."""
    monkeypatch.setattr(redis_servers, "version", lambda _: installed)
    settings.Q_CLUSTER = {"name": "site", **broker} if broker else {}
    settings.CHANNEL_LAYERS = {}
    messages = checks.check_redis_timeouts()
    assert said(messages) == (with_8 if installed == "8.1.0" else with_7)
    for message in messages:
        settings.Q_CLUSTER = pasted(message, Q_CLUSTER=settings.Q_CLUSTER)["Q_CLUSTER"]
    assert checks.check_redis_timeouts() == []


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("locmem.LocMemCache", ["W009"]),
        ("dummy.DummyCache", ["W009"]),
        ("redis.RedisCache", []),
        ("db.DatabaseCache", []),
    ],
)
@pytest.mark.parametrize("throttles", [None, {}, {"sends": "5/min"}])
def test_throttles_need_a_cache_that_processes_share(settings, backend, expected, throttles):
    """Where there are any."""
    settings.DURABLE_AGENTS = {"THROTTLES": throttles}
    caches = {"default": {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": "x"}}
    settings.CACHES = {**caches, "other": {}}
    messages = checks.check_cache()
    assert said(messages) == (expected if throttles else [])
    for message in messages:
        settings.CACHES = pasted(message, CACHES=settings.CACHES)["CACHES"]
        assert "other" in settings.CACHES
        assert checks.check_cache() == []


@pytest.mark.parametrize(
    ("location", "options", "expected"),
    [
        ("redis://127.0.0.1:6379/1", {"socket_timeout": None}, ["W016"]),
        ("redis://127.0.0.1:6379/1", {"socket_timeout": 1}, []),
        (["redis://127.0.0.1:6379/1?socket_timeout=1", "redis://127.0.0.1:6380/1"], {"socket_timeout": None}, ["W016"]),
        ("redis://127.0.0.1:6379/1?socket_timeout=1", {}, []),
    ],
)
def test_a_cache_that_counts_throttles_holds_up_no_request(settings, location, options, expected):
    """Its Redis may hang."""
    cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": location, "OPTIONS": options}
    settings.CACHES = {"default": cache}
    settings.DURABLE_AGENTS = {"THROTTLES": None}
    assert checks.check_cache() == []
    settings.DURABLE_AGENTS = {"THROTTLES": {"sends": "5/min"}}
    messages = checks.check_cache()
    assert said(messages) == expected
    for message in messages:
        settings.CACHES = pasted(message, CACHES=settings.CACHES)["CACHES"]
        assert checks.check_cache() == []


def test_a_project_without_caches_gets_them_whole(settings):
    """Django's own default counts for itself in every process."""
    settings.DURABLE_AGENTS = {"THROTTLES": {"sends": "5/min"}}
    [message] = checks.check_cache()
    settings.CACHES = pasted(message)["CACHES"]
    assert checks.check_cache() == []


@pytest.mark.parametrize(
    ("throttles", "proxies", "expected"),
    [
        ({"sends": "5/min"}, None, ["W015"]),
        ({"sends": "5/min"}, 0, []),
        ({"sends": "5/min"}, 1, []),
        (None, None, []),
    ],
)
def test_throttles_of_visitors_need_the_number_of_proxies(settings, throttles, proxies, expected):
    settings.DURABLE_AGENTS = {"THROTTLES": throttles}
    settings.REST_FRAMEWORK = {"NUM_PROXIES": proxies}

    messages = checks.check_proxies()

    assert said(messages) == expected
    for message in messages:
        settings.REST_FRAMEWORK = pasted(message, REST_FRAMEWORK=settings.REST_FRAMEWORK)["REST_FRAMEWORK"]
        assert checks.check_proxies() == []


@pytest.mark.parametrize(
    ("options", "ids"),
    [(True, ["durable_agents.W012"]), ({"max_size": 11}, ["durable_agents.W012"]), ({"max_size": 12}, []), (None, [])],
)
def test_pool_that_is_smaller_than_a_worker_needs_is_warned_of(monkeypatch, options, ids):
    database = SimpleNamespace(vendor="postgresql", alias="default", settings_dict={"OPTIONS": {"pool": options}})
    monkeypatch.setattr(checks, "connections", {"default": database})
    assert [message.id for message in checks.check_connection_pool()] == ids


@pytest.mark.parametrize(
    ("hosts", "trusted", "ids"),
    [
        (["example.org"], [], []),
        (["*"], [], ["W017"]),
        (["example.org", "*"], ["*"], ["W017", "W017"]),
        (["example.org"], ["https://app.example.org"], []),
    ],
)
def test_a_deployment_that_lets_pages_of_any_site_open_websockets_is_warned(settings, hosts, trusted, ids):
    """By whatever name they come."""
    settings.ALLOWED_HOSTS = hosts
    settings.DURABLE_AGENTS = {"TRUSTED_ORIGINS": trusted}
    assert said(checks.check_origins()) == ids


@pytest.mark.parametrize(
    ("forms", "sockets", "header", "ids"),
    [
        ([], [], None, []),
        (["https://example.org"], [], None, ["W018"]),
        (["https://example.org"], ["https://example.org"], None, []),
        (["https://example.org"], [], ("HTTP_X_FORWARDED_PROTO", "https"), []),
        (["https://elsewhere.example"], [], None, []),
    ],
)
def test_a_site_whose_forms_work_and_whose_websockets_are_refused_is_warned(settings, forms, sockets, header, ids):
    """Django takes it for `http` where a proxy does not say otherwise."""
    settings.ALLOWED_HOSTS = ["example.org"]
    settings.CSRF_TRUSTED_ORIGINS = forms
    settings.SECURE_PROXY_SSL_HEADER = header
    settings.DURABLE_AGENTS = {"TRUSTED_ORIGINS": sockets}
    assert said(checks.check_scheme()) == ids


@pytest.mark.parametrize("value", ["https://example.org", ["example.org"], ["https://example.org/chat"], [7], None])
def test_an_origin_without_a_scheme_or_with_a_path_is_no_origin(settings, value):
    """It would never be the one that a browser sends."""
    settings.DURABLE_AGENTS = {"TRUSTED_ORIGINS": value}
    assert said(checks.check_values()) == ["E006"]


class IsInTheOffice(IsAuthenticated):
    """A rule of the project."""


@pytest.mark.parametrize(
    ("classes", "policy", "ids"),
    [
        (None, None, []),
        (["rest_framework.permissions.IsAuthenticated"], None, []),
        (["rest_framework.permissions.IsAdminUser", f"{__name__}.IsInTheOffice"], None, ["W019"]),
        (["rest_framework.permissions.IsAdminUser"], "tests.api.policies.AskedPolicy", []),
    ],
)
def test_permission_classes_that_the_api_does_not_use_are_told(settings, classes, policy, ids):
    """Unless the project has a policy, where its rules for threads belong."""
    settings.REST_FRAMEWORK = {} if classes is None else {"DEFAULT_PERMISSION_CLASSES": classes}
    settings.DURABLE_AGENTS = {} if policy is None else {"POLICY": policy}
    messages = checks.check_permission_classes()
    assert said(messages) == ids
    for message in messages:
        assert "does not use IsAdminUser, IsInTheOffice of DEFAULT_PERMISSION_CLASSES" in message.msg
        assert pasted(message) == {"SILENCED_SYSTEM_CHECKS": [message.id]}
