"""Extensions of django-q2: locks that are released when their process dies, the sweep's schedule, and inspection."""

from durable_agents.task_queue.qcluster_hardening import cluster_is_stopping, harden
from durable_agents.task_queue.schedule import schedule_sweep

__all__ = ["cluster_is_stopping", "harden", "schedule_sweep"]
