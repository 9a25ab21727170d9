"""The state machine of threads, model calls and tool calls. Each transition is one function and one transaction.

A worker is allowed to write to a row only while it holds the lease of that row. Each write of a worker checks this.

The transitions of a thread (``THREAD_TRANSITIONS`` in ``models``):

    completed ─────────────► streaming                send_message, edit_message, regenerate, resume_thread
    streaming ─────────────► streaming                commit_step, retry_step, release, reap: another attempt or step
    streaming ─────────────► awaiting_tool_results    commit_step: the step made tool calls
    awaiting_tool_results ─► streaming                finish_tool_call, add_tool_result: the last open call
    streaming ─────────────► completed                commit_step: no tool call is open
    awaiting_tool_results ─► completed                finish_tool_call: an answer already follows the call
    streaming ─────────────► failed                   fail_step, reap
    awaiting_tool_results ─► failed                   finish_tool_call: max_steps are used up
    streaming ─────────────► stopped                  stop_thread
    awaiting_tool_results ─► stopped                  stop_thread
    failed ────────────────► streaming                resume_thread, send_message, edit_message, regenerate
    stopped ───────────────► streaming                resume_thread, send_message, edit_message, regenerate

The transitions of a stream, which stores one model call (``STREAM_TRANSITIONS``):

    pending ───────────────► streaming                claim
    pending ───────────────► aborted                  stop_thread, send_message, settle_unknown_code
    streaming ─────────────► finished                 commit_step
    streaming ─────────────► aborted                  retry_step, fail_step, stop_thread, release, reap

The transitions of a tool call (``TOOL_CALL_TRANSITIONS``):

    approval_requested ────► pending                  approve_tool_call
    approval_requested ────► denied                   reject_tool_call
    approval_requested ────► failed                   approve_tool_call: the arguments no longer fit
    approval_requested ────► expired                  expire, approve_tool_call
    approval_requested ────► cancelled                stop_thread, send_message
    pending ───────────────► running                  claim
    pending ───────────────► completed                add_tool_result
    pending ───────────────► failed                   add_tool_error, settle_unknown_code
    pending ───────────────► expired                  expire
    pending ───────────────► cancelled                stop_thread, send_message
    running ───────────────► pending                  retry_tool_call, announce_tool_call, release, reap
    running ───────────────► completed                finish_tool_call, add_tool_result
    running ───────────────► failed                   finish_tool_call, add_tool_error, expire, reap
    running ───────────────► cancelled                stop_thread
    running ───────────────► unknown                  reap, release: the tool may have run
    unknown ───────────────► pending                  settle_tool_call: run the tool again
    unknown ───────────────► completed                settle_tool_call
    unknown ───────────────► failed                   settle_tool_call
    unknown ───────────────► expired                  expire
    unknown ───────────────► cancelled                stop_thread
    unknown ───────────────► unknown                  send_message: the run does not wait for the result

The section "One message, eight stops" of ``docs/concepts.md`` follows a user's message from the request to the browser.

The transitions are grouped by who causes them:

- people: ``threads``, ``create_or_send``, ``messages_without_run``, ``edit_and_fork`` and ``deletion``
- workers: ``claims``, ``steps`` and ``tool_calls``
- people, browsers and services that answer tool calls: ``decisions``
- the death of a worker: ``recovery``

Most transitions change single rows with the functions in ``rows``. Then they call ``advance``, which decides what the
thread does next. ``transaction`` runs a transition. ``attachments`` stores and deletes the files of messages.

Locking rule: a transition locks the thread's row first, and reads other rows only after that. Only the transitions in
``claims``, such as ``claim``, ``append_deltas`` and ``heartbeat``, do not lock the thread. ``advance`` runs only under
the thread's lock.
"""

from durable_agents.lifecycle.advance import advance
from durable_agents.lifecycle.attachments import NewFiles, prune_unsent, store_files, upload
from durable_agents.lifecycle.audit import prune_audit
from durable_agents.lifecycle.call_signing import is_signed
from durable_agents.lifecycle.callback_dispatch import usage_of
from durable_agents.lifecycle.claims import (
    ANY_SUSPECT,
    MANY_NEW_SUSPECTS,
    NEW_SUSPECTS,
    TRIED_BEFORE,
    Append,
    Claim,
    RowKind,
    SuspectRule,
    append_deltas,
    blame,
    claim,
    clear,
    ensure_pools,
    has_open_work,
    heartbeat,
    impatient,
    leased_to,
    lost_claims,
    suspects_wait,
)
from durable_agents.lifecycle.create_or_send import begin_chat, stop_answer
from durable_agents.lifecycle.decisions import (
    MAX_TIMEOUT_SECONDS,
    add_tool_error,
    add_tool_result,
    approve_tool_call,
    reject_tool_call,
    set_tool_call_timeout,
    settle_tool_call,
)
from durable_agents.lifecycle.deletion import delete_if_idle, delete_thread, erase
from durable_agents.lifecycle.edit_and_fork import edit_message, edit_message_with_files, fork_thread, regenerate
from durable_agents.lifecycle.live_delivery_reports import store_delivery_counts
from durable_agents.lifecycle.messages_without_run import add_message
from durable_agents.lifecycle.recovery import (
    Spent,
    begin_again,
    notify_overdue,
    prune,
    reap,
    release,
    settle_unknown_code,
)
from durable_agents.lifecycle.rows import TOOL_CHANGED
from durable_agents.lifecycle.steps import (
    FailedAttempt,
    NewCall,
    ResolvedTool,
    StepOutcome,
    commit_step,
    fail_step,
    name_thread,
    record_usage,
    retry_step,
)
from durable_agents.lifecycle.threads import (
    check_id,
    create_thread,
    get_or_create_message,
    get_or_create_thread,
    resume_thread,
    run_command,
    send_message,
    stop_thread,
    update_thread,
)
from durable_agents.lifecycle.together import Ended, Ending, Handed, end_together, has_callbacks_inside
from durable_agents.lifecycle.tool_calls import (
    EXPIRY_GRACE_SECONDS,
    AtomicInterruptedError,
    CallResult,
    announce_tool_call,
    expire,
    finish_tool_call,
    overdue_calls,
    report_progress,
    restart_timeout,
    retry_tool_call,
    run_atomic,
    seconds_left,
)
from durable_agents.lifecycle.transaction import HandOver, ThreadHeldError, database, id_of
from durable_agents.lifecycle.websocket_tickets import TICKET_SECONDS, issue_ticket, redeem_ticket
from durable_agents.lifecycle.worker_problems import note_problem, project, try_to_write

__all__ = [
    "ANY_SUSPECT",
    "EXPIRY_GRACE_SECONDS",
    "MANY_NEW_SUSPECTS",
    "MAX_TIMEOUT_SECONDS",
    "NEW_SUSPECTS",
    "TICKET_SECONDS",
    "TOOL_CHANGED",
    "TRIED_BEFORE",
    "Append",
    "AtomicInterruptedError",
    "CallResult",
    "Claim",
    "Ended",
    "Ending",
    "FailedAttempt",
    "HandOver",
    "Handed",
    "NewCall",
    "NewFiles",
    "ResolvedTool",
    "RowKind",
    "Spent",
    "StepOutcome",
    "SuspectRule",
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
    "clear",
    "commit_step",
    "create_thread",
    "database",
    "delete_if_idle",
    "delete_thread",
    "edit_message",
    "edit_message_with_files",
    "end_together",
    "ensure_pools",
    "erase",
    "expire",
    "fail_step",
    "finish_tool_call",
    "fork_thread",
    "get_or_create_message",
    "get_or_create_thread",
    "has_callbacks_inside",
    "has_open_work",
    "heartbeat",
    "id_of",
    "impatient",
    "is_signed",
    "issue_ticket",
    "leased_to",
    "lost_claims",
    "name_thread",
    "note_problem",
    "notify_overdue",
    "overdue_calls",
    "project",
    "prune",
    "prune_audit",
    "prune_unsent",
    "reap",
    "record_usage",
    "redeem_ticket",
    "regenerate",
    "reject_tool_call",
    "release",
    "report_progress",
    "restart_timeout",
    "resume_thread",
    "retry_step",
    "retry_tool_call",
    "run_atomic",
    "run_command",
    "seconds_left",
    "send_message",
    "set_tool_call_timeout",
    "settle_tool_call",
    "settle_unknown_code",
    "stop_answer",
    "stop_thread",
    "store_delivery_counts",
    "store_files",
    "suspects_wait",
    "try_to_write",
    "update_thread",
    "upload",
    "usage_of",
]
