"""A twin does what its function does, where that function would have done it: same connection, same transaction."""

import threading

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction

from durable_agents import (
    ThreadNotFoundError,
    acreate_thread,
    aget_thread,
    alist_messages,
    alist_threads,
    asend_message,
    astop_thread,
)
from durable_agents.async_versions import async_version
from durable_agents.models import Thread

pytestmark = pytest.mark.django_db(transaction=True)


async def test_a_conversation_is_led_by_coroutines_alone(agent, coroutine_side):
    """Results and errors are those of the functions."""
    thread = await acreate_thread(agent, prompt="One", scope="shop")
    await asend_message(thread, "Two", client_id="m2")
    assert [message.text for message in await alist_messages(thread)] == ["One", "Two"]
    assert (await astop_thread(thread.pk)).status == "stopped"
    assert [found.pk async for found in await alist_threads(scope="shop")] == [thread.pk]
    with pytest.raises(ThreadNotFoundError):
        await aget_thread("no id")


def test_a_twin_works_in_the_transaction_of_sync_code_around_it(agent):
    """Rolled back means never happened."""

    async def write():
        thread = await acreate_thread(agent, prompt="One")
        await asend_message(thread, "Two")
        return thread

    with transaction.atomic():
        thread = async_to_sync(write)()
        transaction.set_rollback(True)
    assert not Thread.objects.filter(pk=thread.pk).exists()


def test_a_twin_runs_in_the_thread_of_sync_code_around_it():
    """Where the database connection is."""
    here = async_to_sync(async_version(threading.current_thread))()
    assert here is threading.current_thread()
