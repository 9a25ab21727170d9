"""Store the problems that keep worker processes from working."""

from __future__ import annotations

import uuid

from django.db import connections
from django.db.models.functions import Now

from durable_agents.lifecycle.transaction import database, transition
from durable_agents.models import WorkerProblem, seconds_from_now
from durable_agents.strictjson import clean
from durable_agents.worker_problem_files import Notice

PROBE = "probe"
PROBE_CHARS = 20_000
"""The number of characters in the test row. A shorter row might still fit into the last page of the database when the
disk is full.
"""


def project() -> str:
    """Return the name of this project's database. The name tells the processes of this project apart from those of
    other projects on the same machine.
    """
    settings = connections[database()].settings_dict
    return f"{settings['HOST']}:{settings['PORT']}/{settings['NAME']}"


@transition
def note_problem(notice: Notice, *, is_over: bool = False) -> None:
    """Store why a process cannot work. With ``is_over``, store that it can work again. There is one row per process and
    kind of problem.
    """
    WorkerProblem.objects.using(database()).update_or_create(
        holder=notice.holder[:200],
        kind=notice.kind,
        defaults={
            "cluster": notice.cluster[:100],
            "detail": str(clean(notice.detail))[:2000],
            "since": seconds_from_now(-notice.seconds),
            "seen_at": Now(),
            "ended_at": Now() if is_over else None,
        },
    )


def try_to_write() -> None:
    """Insert a row and delete it in separate transactions, to check that the database accepts writes. Raises the
    database error if it does not.
    """
    holder = f"{PROBE}:{uuid.uuid4()}"
    row = WorkerProblem(holder=holder, kind=PROBE, detail="-" * PROBE_CHARS, since=Now(), ended_at=Now())
    row.save(using=database(), force_insert=True)
    WorkerProblem.objects.using(database()).filter(holder=holder).delete()
