"""What django-q2 does not do for us: locks that die with their holder, the schedule of the sweep, inspection."""

from durable_agents.task_queue.qcluster_hooks import cluster_is_stopping, harden
from durable_agents.task_queue.schedule import schedule_sweep

__all__ = ["cluster_is_stopping", "harden", "schedule_sweep"]
