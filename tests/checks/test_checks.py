"""What the system checks say, and that they say nothing of a project that is set up as the documents have it."""

from types import SimpleNamespace

import pytest
from django.core.checks import Error, run_checks

from durable_agents import Agent, checks, tool
from durable_agents.agents import registry


def said(messages):
    """Return the ids of messages, each of which must say what to do."""
    assert all(message.hint for message in messages)
    return [message.id.removeprefix("durable_agents.") for message in messages]


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
    assert all(str(checks.SQLITE_OPTIONS) in message.hint for message in messages)


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
    assert said(checks.check_pools()) == expected


def test_agents_and_tools_need_pools_that_are_configured(settings):
    """A typing error in a pool's name would leave threads waiting."""

    @tool(pool="slwo")
    def work() -> None:
        """Work."""

    Agent("checked", model="openai/x", pool="slow", tools=[work])
    try:
        settings.DURABLE_AGENTS = {"POOLS": {"slow": {"limit": 1}}}
        assert [message.msg.split("'")[1] for message in checks.check_pools()] == ["slwo"]
        settings.DURABLE_AGENTS = {}
        assert said(checks.check_pools()) == ["E004", "E004"]
    finally:
        registry.remove("checked")


@pytest.mark.parametrize("path", ["myapp.Policy", "durable_agents.policies.NoPolicy", "nonsense"])
def test_a_policy_that_is_not_there_is_an_error(settings, path):
    """Said at the start, not at the first request."""
    settings.DURABLE_AGENTS = {"POLICY": path}
    assert said(checks.check_policy()) == ["E005"]


@pytest.mark.parametrize(
    ("q_cluster", "expected"),
    [({"sync": True}, ["W002"]), ({"scheduler": False}, ["W003"]), ({"sync": False, "scheduler": True}, []), ({}, [])],
)
def test_a_queue_that_is_none_is_warned_of(settings, q_cluster, expected):
    """Tests of a project may want it so."""
    settings.Q_CLUSTER = {"name": "site", **q_cluster}
    assert said(checks.check_queue()) == expected


def test_in_production_the_in_memory_layer_is_warned_of(settings):
    """It works, by polling."""
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    assert said(checks.check_channel_layer()) == ["W004"]


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (["redis://127.0.0.1:6379/0"], ["W005"]),
        ([("127.0.0.1", 6379)], ["W005"]),
        ([{"address": "redis://127.0.0.1:6379/0"}], ["W005"]),
        ([{"address": "redis://127.0.0.1:6379/0", "socket_timeout": None}], []),
    ],
)
@pytest.mark.parametrize("installed", ["7.1.0", "8.1.0"])
def test_a_redis_layer_that_breaks_off_silent_sockets_is_warned_of(settings, monkeypatch, hosts, expected, installed):
    """Where the installed redis does that."""
    monkeypatch.setattr(checks, "version", lambda _: installed)
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": hosts}}
    }
    assert said(checks.check_redis_layer()) == (expected if installed == "8.1.0" else [])
