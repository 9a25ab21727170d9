"""Extensions of django-q2: locks that are released when the process that holds them dies, the schedule of the sweep,
and checks of the queue for ``agents_doctor``.
"""

from durable_agents.task_queue.qcluster_hardening import cluster_is_stopping, harden
from durable_agents.task_queue.schedule import schedule_sweep

__all__ = ["cluster_is_stopping", "harden", "schedule_sweep"]
