"""The setting `DURABLE_AGENTS` as the code sees it."""

from durable_agents.conf import config


def test_a_pool_that_is_given_in_part_keeps_its_own_default(settings):
    """A cluster for the tools does not raise their limit."""
    settings.DURABLE_AGENTS = {"POOLS": {"tools": {"cluster": "slow"}, "own": {"cluster": "slow"}}}
    pools = config().pools
    assert {name: (pool.cluster, pool.limit) for name, pool in pools.items()} == {
        "agents": (None, None),
        "tools": ("slow", None),
        "own": ("slow", None),
    }


def test_a_key_counts_as_it_is_documented_only(settings):
    """The system check says of any other that there is none."""
    settings.DURABLE_AGENTS = {"lease_seconds": 1, "FLUSH_MS": 70}
    assert (config().lease_seconds, config().flush_ms) == (30, 70)
