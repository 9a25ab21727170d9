"""The arrows that people draw, through Python, REST, websocket or admin: send, stop, resume, edit, delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import IntegrityError
from django.db.models import F
from django.db.models.functions import Now
from django.db.models.signals import pre_delete
from django.dispatch import receiver

from durable_agents.agents import Agent, registry
from durable_agents.conf import config
from durable_agents.exceptions import (
    AgentNotFoundError,
    InvalidPartsError,
    ThreadBusyError,
    ThreadNotFoundError,
    TooLargeError,
)
from durable_agents.lifecycle.advance import advance, begin_run, decide
from durable_agents.lifecycle.attachments import Sender, with_files
from durable_agents.lifecycle.history import remove_thread, write_history
from durable_agents.lifecycle.locking import Locked, arrow, database, hold_thread, id_of, log_arrow, transact
from durable_agents.lifecycle.moves import (
    MAY_HAVE_RUN,
    abort,
    add_stream,
    answer_of_next_attempt,
    last_message,
    put_message,
    running_atomically,
    settle,
    streams_of,
    text_so_far,
)
from durable_agents.models import (
    Attachment,
    Command,
    Delta,
    Message,
    Role,
    Stream,
    StreamState,
    Thread,
    ThreadStatus,
    ToolCall,
    ToolCallStatus,
)
from durable_agents.parts import Part, user_parts
from durable_agents.strictjson import clean, is_storable

MAX_TITLE_CHARS = 200
_STOPPED = "The run was stopped before the tool call had a result."


@with_files
@arrow
def create_thread(
    agent: str | Agent,
    *,
    owner: Any = None,
    scope: str = "",
    prompt: str | None = None,
    parts: list[Part] | None = None,
    messages: Sequence[Mapping[str, Any]] | None = None,
    start: bool | None = None,
    client_id: str | None = None,
    title: str = "",
    metadata: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
) -> Thread:
    """A new thread, at rest or, with ``prompt`` or ``parts``, with its first run due.

    ``messages`` is a history that it begins with: each has a ``role`` (user, assistant, system) and ``parts``, or
    ``content`` as a text. ``start=False`` stores the prompt and begins no run; ``start=True`` begins one for a history
    that ends with a user's message.

    A ``client_id`` that the owner has used in this scope gives back that thread, unchanged. It is an id in URLs, too:
    one with a slash is refused. Raises AgentNotFoundError, TooLargeError for a title of more than 200 characters, and
    what ``send_message`` raises.
    """
    name = agent.name if isinstance(agent, Agent) else registry.get(agent).name
    _check_id_in_urls(client_id)
    using = database()
    with transact():
        known = _known_thread(owner, scope, client_id)
        if known is not None:
            return known
        thread = Thread(
            agent=name,
            owner=owner,
            scope=scope,
            client_id=client_id,
            title=_checked_title(title),
            metadata=clean(metadata or {}),
            context=clean(context or {}),
        )
        try:
            with transact(savepoint=client_id is not None):
                thread.save(using=using, force_insert=True)
        except IntegrityError:
            known = _known_thread(owner, scope, client_id)
            if known is None:
                raise
            return known
        with hold_thread(thread.pk, savepoint=False) as locked:
            write_history(locked, messages or ())
            asks = prompt is not None or parts is not None
            if asks:
                put_message(locked, Role.USER, _checked_parts(prompt, parts))
            if start or (start is None and asks):
                begin = _start_run if asks else _go_on
                begin(locked)
    log_arrow("create_thread", thread=thread.pk)
    return locked.thread


def _known_thread(owner: Any, scope: str, client_id: str | None) -> Thread | None:
    if client_id is None:
        return None
    return Thread.objects.using(database()).filter(owner=owner, scope=scope, client_id=client_id).first()


@with_files
@arrow
def send_message(
    thread: Thread | UUID | str,
    prompt: str | None = None,
    *,
    parts: list[Part] | None = None,
    client_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    sender: Sender | None = None,
) -> Message:
    """A user's message; a thread at rest starts a run.

    While a run is on, the agent's ``when_busy`` decides: ``steer`` puts the message into the history of the next
    model call, ``queue`` keeps it until the run is over, ``interrupt`` stops the run first, ``reject`` raises
    ThreadBusyError. A ``client_id`` that the thread knows, or under which it shows a user's message, gives back that
    message and changes nothing, whatever is said.

    A file among the ``parts`` is a ``data:`` URL, which is stored and named by its URL from then on, or the URL of an
    attachment: one that ``sender`` (owner and scope; by default those of the thread) has uploaded and not sent yet, or
    one of this thread. Raises ThreadNotFoundError, AgentNotFoundError, InvalidPartsError and TooLargeError.
    """
    check_id(client_id)
    with hold_thread(id_of(thread)) as locked:
        known = _known_message(locked.thread, client_id)
        if known is not None:
            return known
        checked = _checked_parts(prompt, parts)
        if context is not None:
            locked.thread.context = clean(dict(context))
        facts: dict[str, Any] = {"metadata": clean(dict(metadata or {})), "sender": sender}
        message = _take_message(locked, checked, client_id=client_id, **facts)
    log_arrow("send_message", thread=message.thread_id, message_id=message.pk)
    return message


def _checked_parts(prompt: str | None, parts: list[Part] | None) -> list[Part]:
    return user_parts(prompt, parts, max_text_chars=config().max_text_chars)


def _take_message(
    locked: Locked,
    parts: list[Part],
    *,
    client_id: str | None = None,
    metadata: dict[str, Any] | None = None,
    sender: Sender | None = None,
) -> Message:
    """Add a user's message and do what it does to the thread, by the agent's ``when_busy``."""
    busy = _when_busy(locked)
    if busy == "interrupt":
        _settle_stop(locked)
    queued = busy == "queue"
    facts: dict[str, Any] = {"client_id": client_id, "metadata": metadata, "sender": sender}
    message = put_message(locked, Role.USER, parts, queued=queued, **facts)
    if not queued and locked.thread.is_running:
        _steer_pending(locked)
    if not queued:
        _start_run(locked)
    return message


def _steer_pending(locked: Locked) -> None:
    """An attempt that nobody has begun answers the new message too: its answer begins after it."""
    pending = streams_of(locked).filter(state=StreamState.PENDING).select_for_update(no_key=True).first()
    if pending is not None and pending.goes_on:  # what was said stays before the new message
        abort(locked, pending, reason="steered", kept=text_so_far(pending))
        answer_id = answer_of_next_attempt(locked, pending.answer_id)
        add_stream(locked, answer_id, attempt=pending.attempt, crashes=pending.crashes)
    elif pending is not None:
        pending.message_id = answer_of_next_attempt(locked, pending.answer_id)
        pending.rev = locked.thread.next_rev()
        pending.save(using=database(), update_fields=["message", "rev"])


def check_id(given: str | None) -> None:
    """Raise InvalidPartsError for an id of a client's that cannot be kept as it is; None is none."""
    if given is not None and not (0 < len(given) <= 200 and is_storable(given)):
        raise InvalidPartsError("An id or key has 1 to 200 characters, without NUL and lone surrogates.")


def _check_id_in_urls(given: str | None) -> None:
    """The same for an id that is a part of a path: no path reaches one with a slash, or one that means a folder."""
    check_id(given)
    if given is not None and ("/" in given or given in {".", ".."}):
        raise InvalidPartsError(f"The id {given!r} cannot stand in a URL: give one without '/', and not '.' or '..'.")


def _checked_title(title: str) -> str:
    cleaned: str = clean(title)
    if len(cleaned) > MAX_TITLE_CHARS:
        raise TooLargeError(f"The title has {len(cleaned)} characters; at most {MAX_TITLE_CHARS} are allowed.")
    return cleaned


def _known_message(thread: Thread, client_id: str | None) -> Message | None:
    """The message of this id of a client's, or of ours: two messages are never shown under one."""
    if client_id is None:
        return None
    known = Message.objects.using(database()).shown().filter(thread=thread).find(client_id)
    if known is not None and known.role != Role.USER:
        raise InvalidPartsError("A message that is no user's has this id: give the user's message one of its own.")
    return known


def _when_busy(locked: Locked) -> str | None:
    """What a message does to the run that is on; None where none is."""
    agent = locked.agent
    if agent is None:
        raise AgentNotFoundError(locked.thread.agent)
    if not locked.thread.is_running:
        return None
    if agent.when_busy == "reject":
        raise ThreadBusyError(locked.thread.pk)
    return agent.when_busy


def _start_run(locked: Locked) -> None:
    """Begin a run, or let the one that is on take note of the new message."""
    if locked.thread.is_running:
        advance(locked)
        return
    begin_run(locked)
    decide(locked)


@arrow
def stop_thread(thread: Thread | UUID | str) -> Thread:
    """Halt the run at once, in this transaction: the attempt is fenced, the text stored so far is kept, open calls
    are cancelled, queued messages wait for a resume. At rest: nothing happens. Returns the thread."""
    with hold_thread(id_of(thread)) as locked:
        if locked.thread.is_running:
            _settle_stop(locked)
            log_arrow("request_stop", thread=locked.thread.pk)
    return locked.thread


def _settle_stop(locked: Locked) -> None:
    stream = streams_of(locked).open().select_for_update(no_key=True).first()
    if stream is not None:
        abort(locked, stream, reason="stopped", kept=text_so_far(stream))
    _settle_open_calls(locked)
    locked.thread.retry = None
    locked.move(ThreadStatus.STOPPED)
    locked.thread.stop_rev = locked.thread.rev


def _settle_open_calls(locked: Locked) -> None:
    calls = ToolCall.objects.using(database()).open().filter(thread=locked.thread)
    own = running_atomically.get()
    calls = calls if own is None else calls.exclude(pk=own)
    for call in calls.select_for_update(no_key=True).order_by("pk"):
        error = f"{_STOPPED} {MAY_HAVE_RUN}" if call.status == ToolCallStatus.RUNNING else _STOPPED
        settle(locked, call, ToolCallStatus.CANCELLED, code="stopped", error=error)


@arrow
def resume_thread(thread: Thread | UUID | str, prompt: str | None = None) -> Thread:
    """Continue a thread at rest, with a new message or by trying again what stopped or failed.

    A run that has used up its steps gets as many again. A completed thread without ``prompt`` or unanswered message,
    and a running one, stay as they are. Returns the thread.
    """
    parts = None if prompt is None else _checked_parts(prompt, None)
    with hold_thread(id_of(thread)) as locked:
        if not locked.thread.is_running:
            locked.thread.stop_rev = None
        if parts is not None:
            _take_message(locked, parts)
        elif not locked.thread.is_running:
            _go_on(locked)
        log_arrow("resume", thread=locked.thread.pk)
    return locked.thread


def _go_on(locked: Locked) -> None:
    """Start what a thread at rest has left undone: a stopped or failed run, an unanswered message, or messages that a
    stop held back."""
    is_halted = locked.thread.status in {ThreadStatus.STOPPED, ThreadStatus.FAILED}
    if not (is_halted or _has_unanswered(locked)):
        return
    if locked.agent is None:
        raise AgentNotFoundError(locked.thread.agent)
    begin_run(locked)
    advance(locked, resumed=is_halted)


def _has_unanswered(locked: Locked) -> bool:
    last = last_message(locked)
    if last is not None and last.asks:
        return True
    return bool(Message.objects.using(database()).queued().filter(thread=locked.thread).exists())


@arrow
def run_command(thread_id: UUID, key: str | None, run: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Run a live client's command and keep its answer under ``key``, so that the same command sent again (after a
    lost connection) gives the same answer and changes nothing. Without a key it just runs."""
    check_id(key)
    if key is None:
        return run()
    with transact():
        if not Thread.objects.using(database()).select_for_update(no_key=True).filter(pk=thread_id).first():
            raise ThreadNotFoundError(thread_id)
        commands = Command.objects.using(database())
        known = commands.filter(thread_id=thread_id, key=key).first()
        if known is None:
            known = commands.create(thread_id=thread_id, key=key, result=dict(run()))
    result: Mapping[str, Any] = known.result
    return result


def delete_thread(thread: Thread | UUID | str) -> None:
    """Remove a thread with everything that belongs to it; whoever works on it finds its rows gone and gives up."""
    if not remove_thread(id_of(thread)):
        raise ThreadNotFoundError(thread)


@arrow
def delete_if_idle(thread: Thread | UUID | str, *, days: float) -> bool:
    """Remove a thread at rest that nothing has changed for so many days, and say whether it was one. What somebody
    holds just now is none."""
    with transact():
        idle = Thread.objects.using(database()).idle(days).filter(pk=id_of(thread))
        if not list(idle.select_for_update(skip_locked=True).values_list("pk")):
            return False
        delete_thread(thread)
    return True


@receiver(pre_delete, sender=Thread)
def _empty_thread(instance: Thread, using: str, **_: object) -> None:
    """A thread is about to be deleted, by whatever way: wait for whoever works on it, and take away all that belongs
    to it. What the attempts have cost stays, by the setting ``USAGE_ON_DELETE``.

    Django collects what to delete before; rows that were added meanwhile would stop it.
    """
    list(Thread.objects.using(using).filter(pk=instance.pk).select_for_update().values_list("pk"))
    streams = Stream.objects.using(using).filter(thread=instance)
    calls = ToolCall.objects.using(using).filter(thread=instance)
    for rows in (streams, calls):  # nobody adds a delta to a row that is locked
        list(rows.select_for_update().order_by("pk").values_list("pk"))
    Delta.objects.using(using).filter(stream__thread=instance).delete()
    calls.delete()
    if config().usage_on_delete == "drop":
        streams.delete()
    else:
        open_now = {"state": StreamState.ABORTED, "finish_reason": "deleted", "finished_at": Now()}
        streams.open().update(fence=F("fence") + 1, lease_owner="", lease_expires_at=None, **open_now)
        streams.update(thread=None, message=None, parts=[], text="", error_detail="")
    Message.objects.using(using).filter(thread=instance).delete()
    Attachment.objects.using(using).filter(thread=instance).delete()
    Command.objects.using(using).filter(thread=instance).delete()


@arrow
def edit_thread(
    thread: Thread | UUID | str,
    *,
    title: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    archived: bool | None = None,
) -> Thread:
    """Change what clients may change of a thread; None leaves a field as it is. Returns the thread. Raises
    ThreadNotFoundError, and TooLargeError for a title of more than 200 characters."""
    title = None if title is None else _checked_title(title)
    changes: dict[str, Any] = {"title": title, "metadata": metadata, "archived": archived}
    with hold_thread(id_of(thread)) as locked:
        changed = {name: clean(value) for name, value in changes.items() if value is not None}
        for name, value in changed.items():
            setattr(locked.thread, name, value)
        if changed:
            locked.thread.next_rev()
            locked.thread.save(using=database(), update_fields=list(changed))
    return locked.thread
