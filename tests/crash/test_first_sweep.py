"""Workers sweep as soon as they run, by which the doctor sees them."""

from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import Schedule

from durable_agents.management.diagnosis import check_workers
from durable_agents.task_queue import schedule_sweep
from durable_agents.task_queue.inspection import sweep_facts
from tests.workers import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("pause", [timedelta(), timedelta(days=3)])
def test_the_doctor_sees_workers_soon_after_their_start(agent, start, pause):
    """Also after a pause in which thousands of sweeps were missed."""
    Schedule.objects.all().delete()
    schedule_sweep()
    Schedule.objects.update(next_run=timezone.now() - pause)
    start(workers=1)
    facts = until(lambda: (facts := sweep_facts()) and facts.has_run and facts, seconds=10)
    assert facts.late_by < timedelta(seconds=60)
    assert [level for level, _, _ in check_workers()] == ["ok"]
