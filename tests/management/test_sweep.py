"""`manage.py agents_sweep` gives back what dead workers held and rings for it."""

from io import StringIO

import pytest
from django.core.management import call_command

from durable_agents import create_thread
from durable_agents.models import Stream
from tests.lifecycle.stage import let_expire

pytestmark = pytest.mark.django_db


def test_what_a_dead_worker_held_is_due_again(agent, worker, bells, django_capture_on_commit_callbacks):
    """And the workers are rung."""
    create_thread(agent, prompt="Hi")
    claim = worker.claim_step()
    let_expire(claim)
    bells.forget()
    out = StringIO()
    with django_capture_on_commit_callbacks(execute=True):
        call_command("agents_sweep", stdout=out)
    assert Stream.objects.get(pk=claim.row_id).state == "aborted"
    assert Stream.objects.open().get().state == "pending"
    assert bells.workers
    assert out.getvalue() == "Swept.\n"


def test_a_sweep_with_nothing_to_do_does_nothing_and_may_be_silent(bells):
    """It may run as often as one likes."""
    out = StringIO()
    call_command("agents_sweep", verbosity=0, stdout=out)
    assert (bells.workers, out.getvalue()) == ([], "")
