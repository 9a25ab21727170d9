"""The doctor warns of a Redis on another host that asks for no password, however the settings name it."""

import pytest

from durable_agents.task_queue.redis_servers import redis_servers

LAYER = "channels_redis.core.RedisChannelLayer"
OPEN_BROKERS = [
    {"redis": "redis://redis.internal:6379/0"},
    {"redis": {"host": "10.0.0.7", "port": 6379}},
    {"django_redis": "default"},
]
SAFE_BROKERS = [
    {"redis": "rediss://agents:secret@redis.internal:6379/0"},
    {"redis": "redis://redis.internal:6379/0?password=secret"},
    {"redis": {"host": "10.0.0.7", "password": "secret"}},
    {"redis": "redis://127.0.0.1:6379/0"},
    {"redis": "redis://[::1]:6379/0"},
    {"redis": {"host": "localhost"}},
    {"redis": {"unix_socket_path": "/run/redis.sock"}},
    {"redis": "unix:///run/redis.sock?db=0"},
    {"orm": "default"},
    {"sqs": {"aws_region": "eu-central-1"}},
    {},
]
OPEN_HOSTS = [
    ("redis.internal", 6379),
    "redis://redis.internal:6379/1",
    {"address": "redis://redis.internal:6379/1", "socket_timeout": 10},
    {"address": ("redis.internal", 6379)},
    {"host": "redis.internal"},
    {"sentinels": [("redis.internal", 26379)], "master_name": "main"},
]
SAFE_HOSTS = [
    ("127.0.0.1", 6379),
    "redis://:secret@redis.internal:6379/1",
    {"address": "redis://redis.internal:6379/1", "password": "secret"},
    {"sentinels": [("redis.internal", 26379)], "master_name": "main", "password": "secret"},
]


def exposed():
    return [server.setting for server in redis_servers() if not (server.is_on_this_host or server.has_password)]


@pytest.fixture(autouse=True)
def _nothing_else(settings):
    settings.Q_CLUSTER = {"name": "site", "orm": "default"}
    settings.CHANNEL_LAYERS = {}
    settings.CACHES = {**settings.CACHES, "default": {"BACKEND": "x", "LOCATION": "redis://redis.internal:6379/2"}}


@pytest.mark.parametrize("broker", OPEN_BROKERS, ids=str)
def test_a_broker_on_another_host_without_a_password_is_exposed(settings, broker):
    settings.Q_CLUSTER = {"name": "site", **broker}

    [setting] = exposed()

    assert setting in {'Q_CLUSTER["redis"]', 'CACHES["default"]'}


@pytest.mark.parametrize("broker", SAFE_BROKERS, ids=str)
def test_a_broker_with_a_password_or_on_this_host_is_not_exposed(settings, broker):
    settings.Q_CLUSTER = {"name": "site", **broker}

    assert exposed() == []


@pytest.mark.parametrize("host", OPEN_HOSTS, ids=str)
def test_a_channel_layer_on_another_host_without_a_password_is_exposed(settings, host):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": LAYER, "CONFIG": {"hosts": [host]}}}

    assert exposed() == ['CHANNEL_LAYERS["default"]']


@pytest.mark.parametrize("host", SAFE_HOSTS, ids=str)
def test_a_channel_layer_with_a_password_or_on_this_host_is_not_exposed(settings, host):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": LAYER, "CONFIG": {"hosts": [host]}}}

    assert exposed() == []
