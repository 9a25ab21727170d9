"""Transitions that people cause through Python, REST, websocket or admin: send, stop, resume and change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from django.db import IntegrityError

from durable_agents.actors import Actor, User
from durable_agents.agents import Agent, registry
from durable_agents.conf import config
from durable_agents.exceptions import (
    AgentRemovedError,
    IdempotencyKeyReusedError,
    InvalidPartsError,
    ThreadBusyError,
    ThreadNotFoundError,
    TooLargeError,
)
from durable_agents.lifecycle.advance import advance, begin_run, decide
from durable_agents.lifecycle.attachments import NO_FILES, NewFiles, Sender, store_files
from durable_agents.lifecycle.audit import record
from durable_agents.lifecycle.messages_without_run import content_of, write_history
from durable_agents.lifecycle.rows import (
    MAY_HAVE_RUN,
    Deaths,
    abort,
    add_stream,
    answer_of_next_attempt,
    last_message,
    put_message,
    settle,
    streams_of,
    text_so_far,
)
from durable_agents.lifecycle.transaction import (
    Locked,
    atomic_tool_call,
    database,
    hold_new_thread,
    hold_thread,
    id_of,
    log_transition,
    transact,
    transition,
)
from durable_agents.metadata_and_context import json_object
from durable_agents.models import (
    Command,
    Message,
    Role,
    StreamState,
    Thread,
    ThreadStatus,
    ToolCall,
    ToolCallStatus,
)
from durable_agents.parts import Part, user_parts
from durable_agents.strictjson import clean, content_hash, is_storable

MAX_TITLE_CHARS = 200
STOP = "stop"
"""The name of the websocket command that stops a run. A stop runs even if another command has used its idempotency key.
"""
_STOPPED = "The run was stopped before the tool call had a result."


def create_thread(
    agent: str | Agent,
    *,
    owner: User | None = None,
    scope: str = "",
    prompt: str | None = None,
    parts: list[Part] | None = None,
    messages: Sequence[Mapping[str, object]] | None = None,
    start: bool | None = None,
    client_id: str | None = None,
    title: str = "",
    metadata: Mapping[str, object] | None = None,
    context: Mapping[str, object] | None = None,
    by: Actor | User | None = None,
) -> Thread:
    """Create a thread and return it. With ``prompt`` or ``parts``, the thread gets a first message, and a run starts.

    ``messages`` is an existing history to begin with. Each message is a dict with a ``role`` (user, assistant, system)
    and ``parts`` or a text as ``content``. ``start=False`` stores the first message without starting a run.
    ``start=True`` starts a run for a history that ends with a user's message.

    ``by`` is the user who asks, and is stored as the ``sender`` of the first message. None means the project's own
    code.

    ``client_id`` makes the call idempotent: if this owner already has a thread with this id in this scope, that thread
    is returned unchanged. The id is used in URLs, so it must not contain a slash.

    Raises AgentNotFoundError. Raises TooLargeError for a title of more than 200 characters. Also raises the errors of
    ``send_message``.
    """
    thread, _ = get_or_create_thread(
        agent,
        owner=owner,
        scope=scope,
        prompt=prompt,
        parts=parts,
        messages=messages,
        start=start,
        client_id=client_id,
        title=title,
        metadata=metadata,
        context=context,
        by=by,
    )
    return thread


def get_or_create_thread(
    agent: str | Agent,
    *,
    owner: User | None = None,
    scope: str = "",
    prompt: str | None = None,
    parts: list[Part] | None = None,
    messages: Sequence[Mapping[str, object]] | None = None,
    start: bool | None = None,
    client_id: str | None = None,
    title: str = "",
    metadata: Mapping[str, object] | None = None,
    context: Mapping[str, object] | None = None,
    by: Actor | User | None = None,
) -> tuple[Thread, bool]:
    """Like ``create_thread``, but return the thread and whether it was created."""
    declared = agent if isinstance(agent, Agent) else registry.get(agent)
    check_id(client_id)
    # The id becomes a part of the URL's path. A slash, "." or ".." would change that path.
    if client_id is not None and ("/" in client_id or client_id in {".", ".."}):
        raise InvalidPartsError(
            f"The id {client_id!r} cannot be part of a URL. Use an id without '/', other than '.' and '..'."
        )
    history = list(messages or ())
    with store_files(parts, *map(content_of, history)) as ([first, *contents], new_files):
        beginning = _Beginning(
            history=history, contents=contents, prompt=prompt, parts=first, new_files=new_files, start=start
        )
        return _create_thread(
            declared,
            beginning,
            owner=owner,
            scope=scope,
            client_id=client_id,
            title=title,
            metadata=metadata,
            context=context,
            by=by,
        )


@dataclass(frozen=True, kw_only=True)
class _Beginning:
    """The history and the first message of a new thread. Their files are already stored."""

    history: Sequence[Mapping[str, object]]
    contents: Sequence[object]
    """The content of each message of the history."""
    prompt: str | None
    parts: list[Part] | None
    new_files: NewFiles
    start: bool | None

    @property
    def asks(self) -> bool:
        """Whether the new thread has a first message that the model has to answer."""
        return self.prompt is not None or self.parts is not None


@transition
def _create_thread(
    agent: Agent,
    beginning: _Beginning,
    *,
    owner: User | None,
    scope: str,
    client_id: str | None,
    title: str,
    metadata: Mapping[str, object] | None,
    context: Mapping[str, object] | None,
    by: Actor | User | None,
) -> tuple[Thread, bool]:
    with transact():
        known = _known_thread(owner, scope, client_id)
        if known is not None:
            return known, False
        thread = Thread(
            agent=agent.name,
            agent_is_public=agent.public,
            owner=owner,
            scope=scope,
            client_id=client_id,
            title=_checked_title(title),
            metadata=json_object("metadata", metadata),
            context=json_object("context", context),
        )
        try:
            # If a thread with this client id exists, the insert fails. PostgreSQL then refuses all further statements
            # of the transaction until it is rolled back to a savepoint.
            with transact(savepoint=client_id is not None):
                thread.save(using=database(), force_insert=True)
        except IntegrityError:  # another transaction has just created the thread
            known = _known_thread(owner, scope, client_id)
            if known is None:
                raise
            return known, False
        with hold_new_thread(thread) as locked:
            first_parts = _begin_thread(locked, beginning, by=by)
            arguments = {"agent": agent.name, "parts": first_parts}
            record("create_thread", thread.pk, by, arguments=arguments, locked=locked)
    log_transition("create_thread", thread=thread.pk)
    return locked.thread, True


def _begin_thread(locked: Locked, beginning: _Beginning, *, by: Actor | User | None) -> list[Part] | None:
    """Store the history and the first message of a new thread. Start a run if there is a message to answer. Return the
    parts of the first message, or None if there is no first message.
    """
    write_history(locked, beginning.history, beginning.contents, new_files=beginning.new_files)
    parts = None
    if beginning.asks:
        checked = _checked_parts(beginning.prompt, beginning.parts)
        locked.last = put_message(locked, Role.USER, checked, new_files=beginning.new_files, by=Actor.of(by))
        parts = locked.last.parts
    if beginning.start or (beginning.start is None and beginning.asks):
        begin = _start_run if beginning.asks else _go_on
        begin(locked)
    return parts


def _known_thread(owner: User | None, scope: str, client_id: str | None) -> Thread | None:
    if client_id is None:
        return None
    return Thread.objects.using(database()).filter(owner=owner, scope=scope, client_id=client_id).first()


def send_message(
    thread: Thread | UUID | str,
    prompt: str | None = None,
    *,
    parts: list[Part] | None = None,
    client_id: str | None = None,
    metadata: Mapping[str, object] | None = None,
    context: Mapping[str, object] | None = None,
    sender: Sender | None = None,
    by: Actor | User | None = None,
) -> Message:
    """Add a user's message and return it. If the thread is not running, a run starts.

    During a run, the agent's ``when_busy`` option decides:

    - ``steer``: the next model call of this run gets the message.
    - ``queue``: the message waits until the run ends.
    - ``interrupt``: the run is stopped first.
    - ``reject``: raises ThreadBusyError.

    ``client_id`` makes the call idempotent: if the thread already has a user's message with this id, that message is
    returned and nothing changes, even if the content differs. Raises IdempotencyKeyReusedError if another user sent
    that message.

    ``by`` is the user who sends the message. None means the project's own code. The message's field ``sender`` stores
    this user. The argument ``sender`` is something else: a pair of owner and scope, by default those of the thread.

    A file part has a ``data:`` URL or the URL of an attachment. The file in a ``data:`` URL is stored as a new
    attachment. An attachment URL must belong to a file of this thread, or to a file that is in no message yet. In the
    second case, the owner and scope in the argument ``sender`` must have uploaded the file.

    Raises ThreadNotFoundError, AgentRemovedError, InvalidPartsError and TooLargeError.
    """
    message, _ = get_or_create_message(
        thread,
        prompt,
        parts=parts,
        client_id=client_id,
        metadata=metadata,
        context=context,
        sender=sender,
        by=by,
    )
    return message


def get_or_create_message(
    thread: Thread | UUID | str,
    prompt: str | None = None,
    *,
    parts: list[Part] | None = None,
    client_id: str | None = None,
    metadata: Mapping[str, object] | None = None,
    context: Mapping[str, object] | None = None,
    sender: Sender | None = None,
    new_files: NewFiles = NO_FILES,
    by: Actor | User | None = None,
) -> tuple[Message, bool]:
    """Like ``send_message``, but return the message and whether it was created.

    A caller with its own transaction calls ``store_files`` before the transaction begins, and passes the result as
    ``new_files``.
    """
    with store_files(parts) as ([parts_with_urls], stored):
        content = _Content(
            prompt=prompt, parts=parts_with_urls, metadata=metadata, sender=sender, new_files={**new_files, **stored}
        )
        return _send_message(id_of(thread), content, client_id=client_id, context=context, by=Actor.of(by))


@dataclass(frozen=True, kw_only=True)
class _Content:
    """The content of a user's message. Its files are already stored."""

    prompt: str | None = None
    parts: list[Part] | None = None
    metadata: Mapping[str, object] | None = None
    sender: Sender | None = None
    new_files: NewFiles = field(default_factory=dict)


@transition
def _send_message(
    thread_id: UUID, content: _Content, *, client_id: str | None, context: Mapping[str, object] | None, by: Actor
) -> tuple[Message, bool]:
    check_id(client_id)
    with hold_thread(thread_id, together=True) as locked:
        shown = Message.objects.using(database()).shown().filter(thread=locked.thread)
        known = None if client_id is None else shown.find(client_id)
        # The client may send an id that this package has given to another message, for example to an answer. Clients
        # could not tell two messages with the same id apart.
        if known is not None and known.role != Role.USER:
            raise InvalidPartsError("The message with this id is not a user's. Give the user's message another id.")
        if known is not None:
            # The thread already has a message with this id. If another user sent it, do not return it: the new message
            # would be lost without an error.
            if known.sender_id is not None and by.is_person and by.user_id != known.sender_id:
                raise IdempotencyKeyReusedError(known.shown_id)
            return known, False
        parts = _checked_parts(content.prompt, content.parts)
        if context is not None:
            locked.thread.context = json_object("context", context)
        message = _take_message(locked, parts, content, client_id=client_id, by=by)
        record("send_message", message.thread_id, by, subject=message.shown_id, arguments=message.parts, locked=locked)
    log_transition("send_message", thread=message.thread_id, message_id=message.pk)
    return message, True


def _checked_parts(prompt: str | None, parts: list[Part] | None) -> list[Part]:
    return user_parts(prompt, parts, max_text_chars=config().max_text_chars)


def _take_message(
    locked: Locked, parts: list[Part], content: _Content, *, client_id: str | None = None, by: Actor
) -> Message:
    """Add a user's message with validated parts. If the thread is running, follow the agent's ``when_busy`` option."""
    agent = locked.agent
    if agent is None:
        raise AgentRemovedError(locked.thread.agent)
    busy = agent.when_busy if locked.thread.is_running else None
    if busy == "reject":
        raise ThreadBusyError(locked.thread.pk)
    if busy == "interrupt":
        _settle_stop(locked)
    queued = busy == "queue"
    message = put_message(
        locked,
        Role.USER,
        parts,
        queued=queued,
        client_id=client_id,
        metadata=json_object("metadata", content.metadata),
        sender=content.sender,
        new_files=content.new_files,
        by=by,
    )
    if not queued and locked.thread.is_running:
        _steer_pending(locked)
    elif not queued:
        locked.last = message
    if not queued:
        _start_run(locked)
    return message


def _steer_pending(locked: Locked) -> None:
    """If a model call is pending, let it answer the new message too. Its answer then comes after the new message."""
    pending = streams_of(locked).filter(state=StreamState.PENDING).select_for_update(no_key=True).first()
    # If the pending model call was going to continue the text of an earlier attempt, this text stays before the new
    # message, and a new answer begins after the message.
    if pending is not None and pending.goes_on:
        abort(locked, pending, reason="steered", kept=text_so_far(pending))
        answer_id = answer_of_next_attempt(locked, pending.answer_id)
        add_stream(locked, answer_id, attempt=pending.attempt, deaths=Deaths.of(pending))
    elif pending is not None:
        pending.message_id = answer_of_next_attempt(locked, pending.answer_id)
        pending.rev = locked.thread.next_rev()
        pending.save(using=database(), update_fields=["message", "rev"])


def check_id(client_id: str | None) -> None:
    """Raise InvalidPartsError for a client id that cannot be stored. None means no id."""
    if client_id is not None and not (0 < len(client_id) <= 200 and is_storable(client_id)):
        raise InvalidPartsError("An id or key must have 1 to 200 characters, without NUL and lone surrogates.")


def _checked_title(title: str) -> str:
    cleaned: str = clean(title)
    if len(cleaned) > MAX_TITLE_CHARS:
        raise TooLargeError(f"The title has {len(cleaned)} characters; at most {MAX_TITLE_CHARS} are allowed.")
    return cleaned


def _start_run(locked: Locked) -> None:
    """Start a run. If the thread is already running, let ``advance`` decide what to do with the new message."""
    if locked.thread.is_running:
        advance(locked)
        return
    begin_run(locked)
    decide(locked)


@transition
def stop_thread(thread: Thread | UUID | str, *, by: Actor | User | None = None) -> Thread:
    """Stop the run and return the thread. If nothing is running, nothing changes.

    Everything happens in one transaction. After the commit, the worker cannot write to the thread any more. The text so
    far is kept, and unfinished tool calls are cancelled. Queued messages wait until ``resume_thread`` is called. The
    audit log names ``by`` as the user who stopped the run.
    """
    with hold_thread(id_of(thread)) as locked:
        if locked.thread.is_running:
            _settle_stop(locked)
            record("stop_thread", locked.thread.pk, by)
            log_transition("request_stop", thread=locked.thread.pk)
    return locked.thread


def _settle_stop(locked: Locked) -> None:
    stream = streams_of(locked).open().select_for_update(no_key=True).first()
    if stream is not None:
        abort(locked, stream, reason="stopped", kept=text_so_far(stream))
    calls = ToolCall.objects.using(database()).open().filter(thread=locked.thread)
    caller = atomic_tool_call()
    # Leave out the atomic tool call that runs this code. It gets its outcome when this transaction ends.
    calls = calls if caller is None else calls.exclude(pk=caller)
    for call in calls.select_for_update(no_key=True).order_by("pk"):
        error = f"{_STOPPED} {MAY_HAVE_RUN}" if call.status == ToolCallStatus.RUNNING else _STOPPED
        settle(locked, call, ToolCallStatus.CANCELLED, code="stopped", error=error)
    locked.thread.retry = None
    locked.set_status(ThreadStatus.STOPPED)
    # Messages that are already queued wait until the thread is resumed. Later messages start a run.
    locked.thread.stop_rev = locked.thread.rev


@transition
def resume_thread(thread: Thread | UUID | str, prompt: str | None = None, *, by: Actor | User | None = None) -> Thread:
    """Continue a thread that is not running, and return the thread.

    With ``prompt``, a new message is sent. Without ``prompt``, a stopped or failed run is retried, or a message without
    an answer is answered. If there is no such run or message, or if the thread is already running, nothing changes. If
    a run starts, its steps are counted from 0 again, so it can take ``max_steps`` steps.
    """
    parts = None if prompt is None else _checked_parts(prompt, None)
    with hold_thread(id_of(thread)) as locked:
        if not locked.thread.is_running:
            locked.thread.stop_rev = None
        if parts is not None:
            _take_message(locked, parts, _Content(), by=Actor.of(by))
        elif not locked.thread.is_running:
            _go_on(locked)
        if locked.has_changed:
            record("resume_thread", locked.thread.pk, by, arguments=parts)
        log_transition("resume", thread=locked.thread.pk)
    return locked.thread


def _go_on(locked: Locked) -> None:
    """Start a thread that has unfinished work: a stopped or failed run, an unanswered message, or messages that were
    queued when the run was stopped.
    """
    is_halted = locked.thread.status in {ThreadStatus.STOPPED, ThreadStatus.FAILED}
    if not is_halted:
        last = last_message(locked)
        queued = Message.objects.using(database()).queued().filter(thread=locked.thread)
        if not (last is not None and last.asks) and not queued.exists():
            return
    if locked.agent is None:
        raise AgentRemovedError(locked.thread.agent)
    begin_run(locked)
    advance(locked, resumed=is_halted)


@transition
def run_command(
    thread_id: UUID,
    key: str | None,
    run: Callable[[], Mapping[str, object]],
    *,
    command: str = "",
    by: Actor | User | None = None,
    content: Mapping[str, object] | None = None,
) -> Mapping[str, object]:
    """Run a client's websocket command once per idempotency ``key``, and store its answer.

    If the client sends the same command again, for example after a lost connection, it gets the stored answer and
    nothing changes. Without a key, the command always runs. Each caller (``by``) has its own keys.

    Raises IdempotencyKeyReusedError if the caller has used the key for another command or other ``content``. A stop is
    an exception: it also runs if another command has used the key.
    """
    check_id(key)
    if key is None:
        return run()
    with transact():
        # Lock the thread, so that the same command does not run twice at the same time.
        if not Thread.objects.using(database()).select_for_update(no_key=True).filter(pk=thread_id).first():
            raise ThreadNotFoundError(thread_id)
        whose = {"thread_id": thread_id, "caller": Actor.of(by).digest, "key": key}
        commands, hashed = Command.objects.using(database()), content_hash(content or {})
        used = {row.command: row for row in commands.filter(**whose)}
        known = used.get(command)
        if (known is None and used and command != STOP) or (known is not None and known.content_hash != hashed):
            raise IdempotencyKeyReusedError(key)
        if known is None:
            known = commands.create(command=command, content_hash=hashed, result=dict(run()), **whose)
    result: Mapping[str, object] = known.result
    return result


@transition
def update_thread(
    thread: Thread | UUID | str,
    *,
    title: str | None = None,
    archived: bool | None = None,
    metadata: Mapping[str, object] | None = None,
    context: Mapping[str, object] | None = None,
    by: Actor | User | None = None,
) -> Thread:
    """Change fields of a thread, and return the thread. A field does not change if its argument is None.

    ``metadata`` and ``context`` replace the whole old object. An active run continues. Its next model call and its next
    tool calls get the new values.

    Raises ThreadNotFoundError. Raises TooLargeError for a title of more than 200 characters. Raises
    InvalidJSONObjectError if ``metadata`` or ``context`` is not a JSON object.
    """
    changes: dict[str, object] = {
        "title": None if title is None else _checked_title(title),
        "archived": archived,
        "metadata": None if metadata is None else json_object("metadata", metadata),
        "context": None if context is None else json_object("context", context),
    }
    with hold_thread(id_of(thread)) as locked:
        changed = {name: value for name, value in changes.items() if value is not None}
        for name, value in changed.items():
            setattr(locked.thread, name, value)
        if changed:
            locked.thread.next_rev()
            locked.thread.save(using=database(), update_fields=list(changed))
            record("update_thread", locked.thread.pk, by, arguments=changed)
    return locked.thread
