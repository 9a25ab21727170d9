"""The worker claims due rows, and runs model steps and tools on one event loop. It never writes a status itself; the
transitions in ``lifecycle`` do.

django-q2 runs ``work(cluster)`` as a task. The task is only a notification that work may be due; it carries no other
data. ``process`` manages the worker process. ``worker`` claims rows (see ``claiming``), runs them, and releases them
before it exits. ``held`` is the table of the rows that the process holds, and ``leases`` keeps their leases.
``runtime`` decides where code runs: on the event loop, on the threads for database work, or on a thread for a
synchronous function. ``model_step`` calls models, and ``step_from_events`` assembles their output. ``tool_run`` calls
tools. Steps and tools get an ``Environment``, the parts of the worker that they use. ``group_commit`` commits finished
steps and tool calls. ``watchdog`` ends a process whose event loop is blocked.
"""

from durable_agents.engine.process import on_spawn, reap_first, sweep, work

__all__ = ["on_spawn", "reap_first", "sweep", "work"]
