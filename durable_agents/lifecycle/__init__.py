"""THE STATE MACHINE: one function per arrow, one transaction each, every write to in-flight rows fenced.

            send_message                    commit_step: calls open
  completed ────────────► streaming ───────────────────────► awaiting_tool_results
      ▲                    │ ▲ ▲  │                                  │    │
      │ commit_step:       │ │ │  └─ retry_step, release, reap ─┐    │    │
      │ nothing open       │ │ └────────────────────────────────┘    │    │
      └────────────────────┤ └── finish_tool_call: the last one ─────┤    │
                           │                                         │    │
        fail_step          │ request_stop                            │    │ request_stop
  failed ◄─────────────────┼──────────────► stopped ◄────────────────┼────┘
    ▲ └─ resume ─► streaming ◄─ resume ─────────┘                    │
    └── finish_tool_call: the last one, and max_steps are used up ───┘

  completed, failed or stopped ── edit_message, regenerate ─► streaming

A stream (one attempt at a step): pending ─claim► streaming ─commit_step► finished, or ─► aborted by retry_step,
fail_step, request_stop, release or reap. A tool call: pending ─claim► running ─finish_tool_call► its outcome, or back
to pending for another attempt.

How a user's message comes to be answered, in five files: ``api/views/messages.py`` (or ``consumers.py``) calls
``send_message`` here; ``engine/worker.py`` claims the stream it made, streams the model's answer, commits it here;
``streaming.py`` stores and reads the deltas between; ``consumers.py`` shows them to the browser.

``people``, ``history`` and ``revisions`` have the arrows that people draw; ``claims``, ``steps`` and ``calls`` those of
workers; ``answers`` those of whoever else a call waits for; ``recovery`` what follows when a worker does not come
back. They are made of the ``moves`` of single rows and end in ``advance``, which decides what the thread does next;
``locking`` says how an arrow is drawn, ``attachments`` how files come with a message and go with their rows.

Locking rule: every arrow but ``claim``, ``append_deltas`` and ``heartbeat`` locks the thread row first and reads only
after that. ``advance`` runs only under that lock and decides, from rows alone, what the thread does next.
"""

from durable_agents.lifecycle.advance import advance
from durable_agents.lifecycle.answers import (
    MAX_TIMEOUT_SECONDS,
    add_tool_error,
    add_tool_result,
    approve_tool_call,
    reject_tool_call,
    set_tool_call_timeout,
    settle_tool_call,
)
from durable_agents.lifecycle.attachments import prune_unsent, taken_in, upload
from durable_agents.lifecycle.calls import (
    EXPIRY_GRACE_SECONDS,
    CallResult,
    announce_tool_call,
    expire,
    finish_tool_call,
    overdue_calls,
    report_progress,
    retry_tool_call,
    run_atomic,
    seconds_left,
)
from durable_agents.lifecycle.chats import begin_chat, stop_answer
from durable_agents.lifecycle.claims import (
    Append,
    Claim,
    Kind,
    append_deltas,
    blame,
    claim,
    ensure_pools,
    has_open_work,
    heartbeat,
    lost_claims,
    suspects_wait,
)
from durable_agents.lifecycle.history import add_message, erase
from durable_agents.lifecycle.locking import ThreadHeldError, database, id_of, without_waiting
from durable_agents.lifecycle.people import (
    check_id,
    create_thread,
    delete_if_idle,
    delete_thread,
    edit_thread,
    resume_thread,
    run_command,
    send_message,
    stop_thread,
)
from durable_agents.lifecycle.recovery import (
    Spent,
    begin_again,
    prune,
    reap,
    release,
    ring_overdue,
    settle_unknown_code,
)
from durable_agents.lifecycle.revisions import edit_message, fork_thread, regenerate
from durable_agents.lifecycle.steps import (
    FailedAttempt,
    NewCall,
    StepOutcome,
    commit_step,
    digest,
    fail_step,
    name_thread,
    record_usage,
    retry_step,
)
from durable_agents.lifecycle.telling import usage_of
from durable_agents.lifecycle.tickets import TICKET_SECONDS, issue_ticket, redeem_ticket

__all__ = [
    "EXPIRY_GRACE_SECONDS",
    "MAX_TIMEOUT_SECONDS",
    "TICKET_SECONDS",
    "Append",
    "CallResult",
    "Claim",
    "FailedAttempt",
    "Kind",
    "NewCall",
    "Spent",
    "StepOutcome",
    "ThreadHeldError",
    "add_message",
    "add_tool_error",
    "add_tool_result",
    "advance",
    "announce_tool_call",
    "append_deltas",
    "approve_tool_call",
    "begin_again",
    "begin_chat",
    "blame",
    "check_id",
    "claim",
    "commit_step",
    "create_thread",
    "database",
    "delete_if_idle",
    "delete_thread",
    "digest",
    "edit_message",
    "edit_thread",
    "ensure_pools",
    "erase",
    "expire",
    "fail_step",
    "finish_tool_call",
    "fork_thread",
    "has_open_work",
    "heartbeat",
    "id_of",
    "issue_ticket",
    "lost_claims",
    "name_thread",
    "overdue_calls",
    "prune",
    "prune_unsent",
    "reap",
    "record_usage",
    "redeem_ticket",
    "regenerate",
    "reject_tool_call",
    "release",
    "report_progress",
    "resume_thread",
    "retry_step",
    "retry_tool_call",
    "ring_overdue",
    "run_atomic",
    "run_command",
    "seconds_left",
    "send_message",
    "set_tool_call_timeout",
    "settle_tool_call",
    "settle_unknown_code",
    "stop_answer",
    "stop_thread",
    "suspects_wait",
    "taken_in",
    "upload",
    "usage_of",
    "without_waiting",
]
