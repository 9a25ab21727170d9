"""The worker: claims due rows, runs model steps and tools in one event loop, and never writes a status itself.

django-q2 runs ``work(cluster)`` as a task; the message is a doorbell and says nothing else. ``process`` looks after the
worker process, ``worker`` claims and drains, ``steps`` calls models and ``answers`` puts together what they say,
``tools`` calls tools, ``watchdog`` ends a process whose loop stands still.
"""

from durable_agents.engine.process import on_spawn, reap_first, sweep, work

__all__ = ["on_spawn", "reap_first", "sweep", "work"]
