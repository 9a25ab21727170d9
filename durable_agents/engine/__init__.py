"""The worker: claims due rows, runs model steps and tools in one event loop, and never writes a status itself.

django-q2 runs ``work(cluster)`` as a task; the task is only a notification and carries nothing else. ``process``
manages the worker process. ``worker`` claims (``claiming``), runs and drains; ``held`` is the table of the rows that
the process holds, ``leases`` keeps their leases, and ``runtime`` is where code runs: the event loop, the database's
threads, threads for synchronous functions. ``model_step`` calls models and ``step_from_events`` assembles their output;
``tool_run`` calls tools; both get an ``Environment``, the parts of the worker that they use. ``watchdog`` ends a
process whose loop stands still.
"""

from durable_agents.engine.process import on_spawn, reap_first, sweep, work

__all__ = ["on_spawn", "reap_first", "sweep", "work"]
