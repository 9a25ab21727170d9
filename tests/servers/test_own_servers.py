"""The servers that tests may harm: they are the test's own, and what is done to them is felt."""

import socket

import pytest
from django.db import InternalError, OperationalError, connection

from durable_agents.models import Pool


def test_own_postgres_is_used_by_this_process_and_empty(own_postgres):
    assert connection.settings_dict["PORT"] == own_postgres.port
    assert Pool.objects.count() == 2


def test_own_postgres_restarted_cuts_sessions_and_keeps_rows(own_postgres):
    Pool.objects.create(name="third", limit=1)
    own_postgres.restart("immediate")
    with pytest.raises(OperationalError):
        Pool.objects.count()
    connection.close()
    assert Pool.objects.count() == 3


def test_own_postgres_read_only_refuses_new_sessions_to_write(own_postgres):
    own_postgres.set_read_only(True)
    with pytest.raises(InternalError):
        Pool.objects.create(name="third", limit=1)
    own_postgres.set_read_only(False)
    own_postgres.cut_sessions()
    connection.close()
    Pool.objects.create(name="third", limit=1)


def test_own_postgres_frozen_does_not_answer_until_it_is_thawed(own_postgres):
    own_postgres.freeze()
    assert not own_postgres.answers()
    own_postgres.thaw()
    assert own_postgres.answers()


def test_own_redis_frozen_takes_connections_and_does_not_answer(own_redis):
    own_redis.freeze()
    socket.create_connection(("127.0.0.1", own_redis.port), timeout=1).close()
    assert not own_redis.answers()
    own_redis.thaw()
    assert own_redis.answers()


@pytest.mark.parametrize("own_pair", ["any"], indirect=True)
def test_own_pair_keeps_every_row_when_the_standby_is_promoted(own_pair):
    Pool.objects.create(name="third", limit=1)
    own_pair.primary.stop("immediate")
    connection.close()
    assert connection.settings_dict["OPTIONS"]["host"] == "127.0.0.1,127.0.0.1"
    assert Pool.objects.count() == 3
    with pytest.raises(InternalError, match="read-only"):
        Pool.objects.create(name="fourth", limit=1)
    own_pair.standby.promote()
    Pool.objects.create(name="fourth", limit=1)


def test_small_disk_is_full_only_for_a_while(small_disk):
    with small_disk.full(), pytest.raises(OSError, match="No space left"):
        (small_disk.folder / "a").write_bytes(b"x" * 10_000)
    assert (small_disk.folder / "a").write_bytes(b"x" * 10_000)
