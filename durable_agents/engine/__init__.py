"""The worker. It claims due rows of the database and runs them on one event loop. A row is a model step or a tool call.

django-q2 runs ``work(cluster)`` as a task. The task only says that work may be due; it carries no other data. The
worker never writes a status itself: the functions of ``lifecycle`` do.

- ``process`` manages the worker process.
- ``worker`` claims rows (see ``claiming``), runs them, and releases them before it exits.
- ``held`` is the table of the rows that the process holds. ``leases`` extends their leases.
- ``runtime`` decides whether a function runs on the event loop or in an OS thread.
- ``model_step`` calls models. ``step_from_events`` assembles their output.
- ``tool_run`` calls tools.
- ``environment`` contains the parts of the worker that steps and tools use.
- ``group_commit`` commits finished steps and tool calls.
- ``watchdog`` ends a process whose event loop is blocked.
"""

from durable_agents.engine.process import on_spawn, reap_first, sweep, work

__all__ = ["on_spawn", "reap_first", "sweep", "work"]
