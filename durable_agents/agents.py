"""Declare agents and tools, and look them up by name.

Declaring an agent or a tool does not need the database, a language model or the queue. Pydantic is imported only when a
tool's schema is first needed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, get_args, overload
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from django.core.exceptions import ImproperlyConfigured

from durable_agents.actors import User
from durable_agents.callback_types import (
    Configure,
    Decider,
    Instructions,
    JSONObject,
    MakeTitle,
    OnCommitStep,
    OnError,
    OnMessageComplete,
    OnRetry,
    OnStatusChange,
    OnTurnComplete,
    Text,
    Thread,
    TransformMessages,
    Who,
)
from durable_agents.exceptions import AgentNotFoundError
from durable_agents.redaction import remember
from durable_agents.retry import ONCE, Retry
from durable_agents.strictjson import JSON, clean
from durable_agents.tool_signatures import SchemaSignature, Signature

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from typing_extensions import TypeVar as TypeVarWithDefault

    # To type checkers, ``Tool`` means ``Tool[Any]``. Do not add a bound to this type variable. With a bound, mypy finds
    # no common type for the items of ``TOOLS = [one_tool, another_tool]``.
    Function_co = TypeVarWithDefault("Function_co", covariant=True, default=Any)
else:
    Function_co = TypeVar("Function_co", covariant=True)

WhenBusy = Literal["steer", "queue", "interrupt", "reject"]
AfterCrash = Literal["retry", "fail", "unknown", "ask"]
StepAfterCrash = Literal["continue", "restart"]
Kind = Literal["sync", "deferred", "client", "provider"]
Callback = Callable[..., Any]
"""One of the project's functions, with any arguments and result."""
F = TypeVar("F", bound=Callback)
P = ParamSpec("P")
R = TypeVar("R")
ApproverWord = Literal["owner", "staff", "other"]
AnswererWord = Literal["server", "owner", "staff", "other"]
MAX_PERMISSION = 200
LEFT_TO_FUNCTION = "function"
"""Stands for a function of the project in the text that ``stored_who`` returns."""
AND = " and "
"""Joins several conditions in the text that ``stored_who`` returns. No condition contains a space."""
_PERMISSION = re.compile(r"\w+\.\w+")

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""Names that every model vendor accepts."""
_AGENT_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,99}")
"""Agent names that fit into a URL and into the database column."""


def is_async(function: Callable[..., object]) -> bool:
    """Return whether ``function`` is a coroutine function or an object with an async ``__call__``."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


@dataclass(frozen=True, kw_only=True)
class ToolContext:
    """Information about a tool call. A tool receives it in the parameter that is annotated with this class.

    ``context`` is set by server code only, so tools can trust it. ``metadata`` is written by clients, so tools must not
    trust it. ``idempotency_key`` is the same for every attempt at the same call.

    ``owner`` is the user who owns the thread. ``sender`` is the user whose message the run answers; if the project's
    own code sent that message, ``sender`` is the owner. In a thread that people share, check what the sender may do,
    and look up database rows by the sender or by ``scope``.
    """

    thread_id: UUID
    message_id: UUID
    tool_call_id: str
    tool_name: str
    agent: str
    owner: User
    scope: str
    context: Mapping[str, Any]
    metadata: Mapping[str, Any]
    attempt: int
    max_attempts: int
    idempotency_key: str
    sender: User = None
    report: Callable[[object], None] = field(default=lambda _: None, repr=False, compare=False)
    """The function that ``progress`` calls. The engine sets it. The default does nothing."""
    is_stopped: Callable[[], bool] = field(default=lambda: False, repr=False, compare=False)
    """The function that ``stop_requested`` calls. The engine sets it. The default returns False."""

    @classmethod
    def for_test(
        cls,
        *,
        owner: User | None = None,
        sender: User | None = None,
        scope: str = "",
        context: Mapping[str, object] | None = None,
        metadata: Mapping[str, object] | None = None,
        agent: str = "test",
        tool_name: str = "test",
        tool_call_id: str = "call_test",
        thread_id: UUID | None = None,
        message_id: UUID | None = None,
        attempt: int = 1,
        max_attempts: int = 1,
        idempotency_key: str | None = None,
        stop_requested: bool = False,
        on_progress: Callable[[object], None] | None = None,
    ) -> ToolContext:
        """Return a context for a test that calls a tool as a function. Every value has a default.

        ``on_progress`` is called with each value that the tool passes to ``progress``.
        """
        return cls(
            thread_id=thread_id or uuid4(),
            message_id=message_id or uuid4(),
            tool_call_id=tool_call_id,
            tool_name=tool_name,
            agent=agent,
            owner=owner,
            sender=owner if sender is None else sender,
            scope=scope,
            context=context or {},
            metadata=metadata or {},
            attempt=attempt,
            max_attempts=max_attempts,
            idempotency_key=idempotency_key or str(uuid4()),
            report=on_progress or (lambda _: None),
            is_stopped=lambda: stop_requested,
        )

    @property
    def stop_requested(self) -> bool:
        """Whether the result is no longer needed, because the run was stopped or the call was given up."""
        return self.is_stopped()

    def progress(self, value: object) -> None:
        """Show users the progress of the call. ``value`` may be any JSON value, and replaces the previous one. Call
        this as often as you like.
        """
        self.report(value)


@dataclass(frozen=True, kw_only=True)
class Streaming:
    """Options for streaming an answer. Text is stored at most once every ``throttle_ms`` milliseconds.

    With ``tool_input_deltas``, the arguments of tool calls are streamed too, while the model writes them.
    """

    throttle_ms: int = 40
    tool_input_deltas: bool = False


@dataclass(frozen=True)
class Tool(Generic[Function_co]):
    """A function that a model may call by name. Calling the tool object calls the function.

    Use the ``@tool`` decorator for functions in your own modules. Use ``Tool(name, function, schema=...)`` for tools
    that are found at run time, such as those of an MCP server (see ``tool_resolver`` in ``Agent``). With ``schema``,
    the model's arguments are checked against this JSON schema, and passed to the function unchanged.
    """

    name: str
    function: Function_co
    schema: Mapping[str, object] | None = field(kw_only=True, default=None, hash=False)
    """The JSON schema of the arguments. None means that the schema is made from the function's type hints."""
    description: Text = field(kw_only=True, default="")
    """What the model is told about the tool. By default, the function's docstring."""
    retry: Retry = field(kw_only=True, default=ONCE)
    """How often the tool is tried again after an error. By default, never."""
    timeout_seconds: float | None = field(kw_only=True, default=1800)
    """The time limit for each attempt. None means no limit."""
    after_crash: AfterCrash = field(kw_only=True, default="unknown")
    """What happens to a call whose worker dies while the tool runs:

    - ``unknown``: end the call, and tell the model that the tool may have run.
    - ``retry``: run the tool again, with the same ``ctx.idempotency_key``.
    - ``fail``: fail the call.
    - ``ask``: wait until a person decides the outcome with ``settle_tool_call``.
    """
    atomic: bool = field(kw_only=True, default=False)
    """Whether the tool's database changes and its outcome are committed in one transaction.

    If the worker dies before the commit, the changes are rolled back and the tool runs again. Therefore the changes
    happen exactly once. The function must be sync. On SQLite, keep atomic tools short, because they hold the database's
    only write lock.
    """
    pool: str | None = field(kw_only=True, default=None)
    """The worker pool whose workers run the tool. By default, the agent's ``tool_pool`` or ``pool``."""
    kind: str = field(kw_only=True, default="sync")
    """Who provides the result:

    - ``sync``: the function, which a worker runs. The function may still be ``async def``.
    - ``deferred``: other code, which calls ``add_tool_result`` later. The function only starts the work.
    - ``client``: the browser. The function is never called; its signature is the schema of the arguments.
    """
    needs_approval: bool | Callable[[ToolContext, JSONObject], object] = field(kw_only=True, default=False)
    """Whether a call waits for a person's approval: a bool, or a sync or async callable(ctx, args) -> bool."""
    approved_by: Who = field(kw_only=True, default="owner")
    """Who may approve a call:

    - ``owner``: the thread's owner and staff users.
    - ``staff``: staff users only.
    - ``other``: any user except the one who caused the call.
    - a permission, such as ``"shop.approve_refund"``: users with this permission.
    - a callable(user, call) -> bool. It runs whenever a user looks at the call, and within the transaction of the
      decision, so keep it fast. If the callable raises an error, nobody may approve the call.
    - a tuple or list of these, such as ``("shop.approve_refund", "other")``: users who meet all of the conditions.
    """
    answered_by: Who = field(kw_only=True, default="")
    """Who may post the result of a deferred or client tool over the API.

    The values are those of ``approved_by`` and, in addition, ``server``: nobody may post the result. The default is
    ``owner`` for client tools, and ``server`` for deferred tools.
    """
    aliases: tuple[str, ...] = field(kw_only=True, default=())
    """Earlier names of the tool. Open calls under these names still run. The model gets only the current name."""

    def __post_init__(self) -> None:
        for option in ("approved_by", "answered_by"):
            if isinstance(who := getattr(self, option), list):
                object.__setattr__(self, option, tuple(who))
        if self.answered_by == "":
            object.__setattr__(self, "answered_by", "owner" if self.kind == "client" else "server")
        for is_wrong, sentence in self._mistakes():
            if is_wrong:
                raise ImproperlyConfigured(f"Tool {self.name!r}: {sentence}")

    def _mistakes(self) -> Iterator[tuple[bool, str]]:
        """For each rule, yield whether this tool breaks the rule, and the error message."""
        yield (
            not _TOOL_NAME.fullmatch(self.name),
            "models accept only names of 1 to 64 letters a-z, digits, _ and -. Set such a name with @tool(name=...).",
        )
        yield _are_no_aliases(self.name, self.aliases)
        yield (
            self.kind == "provider",
            "the model's vendor runs it, so it has no function. Put its definition, a dict, into provider_tools.",
        )
        yield _no_word_of(self.kind, Kind, "kind")
        yield _no_word_of(self.after_crash, AfterCrash, "after_crash")
        yield from _are_no_conditions(self.approved_by, ApproverWord, "approved_by")
        yield from _are_no_conditions(self.answered_by, AnswererWord, "answered_by")
        yield (
            self.atomic and self.kind != "sync",
            f"the result of a {self.kind} tool comes later, from outside. Leave out atomic=True.",
        )
        yield (
            self.atomic and self.is_async,
            "an atomic tool runs inside a database transaction, so it cannot be async. Write it with def.",
        )
        yield (
            self.kind == "client" and self.retry != ONCE,
            "the browser runs a client tool, so no worker can retry it. Leave out retry.",
        )
        yield (
            self.kind == "sync" and self.answered_by != "server",
            "its function's return value is the result. Leave out answered_by, or make it a deferred or client tool.",
        )
        yield (
            not (isinstance(self.needs_approval, bool) or callable(self.needs_approval)),
            "needs_approval is True, False or a callable(ctx, args) that returns one of them.",
        )
        yield (
            self.needs_approval is False and self.approved_by != "owner",
            "approved_by says who approves, but it needs no approval. Add needs_approval=True.",
        )
        yield from self.signature.mistakes()

    def __call__(self: Tool[Callable[P, R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return callable(self.function) and is_async(self.function)

    @cached_property
    def signature(self) -> Signature:
        """The function's parameters, and the rules for the model's arguments."""
        if self.schema is not None:
            return SchemaSignature(self.name, self.function, ToolContext, self.schema)
        return Signature(self.name, self.function, ToolContext)

    @property
    def context_parameter(self) -> str | None:
        """The name of the parameter that gets the ToolContext, or None."""
        return self.signature.context_parameter

    @cached_property
    def result_adapter(self) -> TypeAdapter[object]:
        """The Pydantic adapter that converts return values to JSON, according to the return annotation.

        If there is no annotation, or if Pydantic cannot handle the annotation, the type of each value is used instead.
        """
        from pydantic import PydanticSchemaGenerationError, TypeAdapter  # noqa: PLC0415 - web processes need no schema

        try:
            # No return annotation means ``Any``.
            return TypeAdapter(self.signature.hints.get("return", Any))
        except PydanticSchemaGenerationError:
            return TypeAdapter(Any)

    @cached_property
    def definition(self) -> dict[str, object]:
        """The tool in the form that models get: an OpenAI function definition with a JSON schema."""
        parameters = self.signature.json_schema
        function = {"name": self.name, "description": str(self.description), "parameters": parameters}
        return {"type": "function", "function": function}

    def validate(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Check the model's arguments. Return them as Python values, with defaults filled in. A tool with its own
        ``schema`` gets the arguments unchanged.

        Raises ValueError with a text for the model if the arguments are invalid.
        """
        return self.signature.validate(arguments)

    @property
    def after_death(self) -> AfterCrash:
        """What happens to a tool call whose worker dies.

        This is ``after_crash``, except for tools that can safely run again. For them, it is ``retry``:

        - An atomic tool, because its first run was rolled back.
        - A client tool, because its call only asks the browser for a result.
        - A deferred tool with the default ``after_crash``, because its function only starts the work.
        """
        is_harmless = self.atomic or self.kind == "client"
        is_harmless = is_harmless or (self.kind == "deferred" and self.after_crash == "unknown")
        return "retry" if is_harmless else self.after_crash

    def to_json(self, value: object) -> JSON:
        """Convert a return value to JSON. Raises TypeError if this is impossible, with a hint in the message."""
        if type(value).__module__.startswith("django.db.models") or hasattr(value, "_meta"):
            raise TypeError(
                f"Tool {self.name!r} returned a {type(value).__name__}. Return values (a dict, a Pydantic model), "
                "not model instances or querysets."
            )
        try:
            dumped: object = self.result_adapter.dump_python(value, mode="json", warnings="none")
        except (ValueError, TypeError):
            # Let ``clean`` make the JSON. It accepts lazy translations and lone surrogates, which Pydantic refuses.
            dumped = self.result_adapter.dump_python(value, mode="python", warnings="none")
        return clean(dumped)


def _no_word_of(value: str, words: object, name: str) -> tuple[bool, str]:
    known = get_args(words)
    return value not in known, f"{name} is one of {', '.join(map(repr, known))}, not {value!r}."


def _are_no_conditions(value: object, words: object, name: str) -> Iterator[tuple[bool, str]]:
    """Check a value of ``approved_by`` or ``answered_by``.

    For each rule, yield whether the value breaks the rule, and the error message.
    """
    known = get_args(words)
    conditions = value if isinstance(value, tuple) else (value,)
    yield (
        not conditions or not all(_is_condition(one, known) for one in conditions),
        (
            f'{name} is one of {", ".join(map(repr, known))}, a permission such as "shop.approve_refund", a callable'
            f"(user, call), which cannot be async, or a tuple of conditions that must all hold; not {value!r}."
        ),
    )
    if len(conditions) < 2:
        return
    texts = [condition for condition in conditions if isinstance(condition, str)]
    yield (
        len(set(texts)) < len(texts) or len(conditions) - len(texts) > 1,
        f"{name} is a tuple of different conditions, and at most one of them is a callable; not {value!r}.",
    )
    yield (
        "server" in texts or {"owner", "staff"} <= set(texts),
        (
            f"{name} cannot combine 'server' with other conditions, nor 'owner' with 'staff', because 'owner' includes "
            f"staff; not {value!r}."
        ),
    )
    yield (
        len(stored_who(conditions)) > MAX_PERMISSION,
        f"{name} has at most {MAX_PERMISSION} characters in total; not {value!r}.",
    )


def _is_condition(value: object, known: Collection[str]) -> bool:
    if not isinstance(value, str):
        return callable(value) and not is_async(value)
    return value in known or (len(value) <= MAX_PERMISSION and _PERMISSION.fullmatch(value) is not None)


def _are_no_aliases(name: str, aliases: object) -> tuple[bool, str]:
    is_list = isinstance(aliases, list | tuple) and all(isinstance(alias, str) and alias for alias in aliases)
    names = [name, *(aliases if isinstance(aliases, list | tuple) else ())]
    is_wrong = not is_list or any(names.count(alias) > 1 for alias in names)
    return is_wrong, f"aliases is a list of its earlier names, each once and without {name!r}; not {aliases!r}."


def find_among(tools: Mapping[str, Tool], name: str) -> Tool | None:
    """Return the tool with this name. If no tool has this name, return the tool with this alias, or None."""
    return tools.get(name) or next((item for item in list(tools.values()) if name in item.aliases), None)


def stored_who(who: Who) -> str:
    """Convert a value of ``approved_by`` or ``answered_by`` to the text that is stored with each tool call.

    ``LEFT_TO_FUNCTION`` replaces a function, and ``AND`` joins several conditions.
    """
    conditions = [who] if isinstance(who, str) or callable(who) else who
    return AND.join(LEFT_TO_FUNCTION if callable(one) else one for one in conditions)


def deciding_function(who: Who) -> Decider | None:
    """Return the function in this value of ``approved_by`` or ``answered_by``, or None."""
    conditions = [who] if isinstance(who, str) or callable(who) else who
    return next((one for one in conditions if callable(one)), None)


@overload
def tool(
    function: F,
    /,
    *,
    name: str | None = None,
    description: Text | None = None,
    schema: Mapping[str, object] | None = None,
    retry: Retry | None = None,
    timeout_seconds: float | None = 1800,
    after_crash: AfterCrash = "unknown",
    atomic: bool = False,
    pool: str | None = None,
    kind: Kind = "sync",
    needs_approval: bool | Callable[[ToolContext, JSONObject], object] = False,
    approved_by: Who = "owner",
    answered_by: Who | None = None,
    aliases: Sequence[str] = (),
) -> Tool[F]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: Text | None = None,
    schema: Mapping[str, object] | None = None,
    retry: Retry | None = None,
    timeout_seconds: float | None = 1800,
    after_crash: AfterCrash = "unknown",
    atomic: bool = False,
    pool: str | None = None,
    kind: Kind = "sync",
    needs_approval: bool | Callable[[ToolContext, JSONObject], object] = False,
    approved_by: Who = "owner",
    answered_by: Who | None = None,
    aliases: Sequence[str] = (),
) -> Callable[[F], Tool[F]]: ...


def tool(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    description: Text | None = None,
    schema: Mapping[str, object] | None = None,
    retry: Retry | None = None,
    timeout_seconds: float | None = 1800,
    after_crash: AfterCrash = "unknown",
    atomic: bool = False,
    pool: str | None = None,
    kind: Kind = "sync",
    needs_approval: bool | Callable[[ToolContext, JSONObject], object] = False,
    approved_by: Who = "owner",
    answered_by: Who | None = None,
    aliases: Sequence[str] = (),
) -> Tool[F] | Callable[[F], Tool[F]]:
    """Make a tool from a sync or async function. The model gets the function's name, its docstring, and a JSON schema
    made from its type hints.

    Use this decorator with or without options: ``@tool`` or ``@tool(timeout_seconds=60)``. Each option sets the
    attribute of ``Tool`` with the same name, which is described there. The tool is registered, so that agents can name
    it, and so that workers find it again. Raises ImproperlyConfigured if the options contradict each other.
    """

    def declare(target: F) -> Tool[F]:
        declared = Tool(
            name or str(getattr(target, "__name__", type(target).__name__)),
            target,
            schema=schema,
            description=description or inspect.getdoc(target) or "",
            retry=retry or ONCE,
            timeout_seconds=timeout_seconds,
            after_crash=after_crash,
            atomic=atomic,
            pool=pool,
            kind=kind,
            needs_approval=needs_approval,
            approved_by=approved_by,
            answered_by="" if answered_by is None else answered_by,
            aliases=aliases if isinstance(aliases, str) else tuple(aliases),  # type: ignore[arg-type]  # refused later
        )
        registry.add_tool(declared)
        return declared

    return declare(function) if function is not None else declare


CALLABLES = (
    *("transform_messages", "configure", "tool_resolver", "title", "on_status_change", "on_commit_step"),
    *("on_message_complete", "on_turn_complete", "on_error", "on_retry"),
)
"""The options of an agent that take one of the project's functions."""


def model_of_attempt(models: Sequence[str], attempt: int, *, attempts_per_model: int) -> str:
    """Return the model for attempt number ``attempt``, counted from 1.

    With four attempts per model, attempts 1 to 4 use the first model, 5 to 8 the second, and so on. All later attempts
    use the last model.
    """
    return models[min((attempt - 1) // attempts_per_model, len(models) - 1)]


class Agent:
    """A named combination of a model, instructions and tools. Creating an agent registers it.

    ``model`` is a litellm model string, or a list of them. The next model in the list is used when all attempts with
    the current model have failed, or when another attempt with it cannot succeed. ``model_settings`` are passed to the
    model call. ``instructions`` is a text or a callable(thread) -> text. ``max_steps`` limits the model calls of one
    run. ``when_busy`` says what happens to a message that is sent during a run.

    ``aliases`` are earlier names of the agent. Threads that were created under these names belong to this agent. Raises
    ImproperlyConfigured if another agent has the same name or alias.

    ``after_crash`` says what happens to an answer whose worker dies. ``"restart"`` starts the answer again.
    ``"continue"`` continues the text that is already stored. If the model does not support this, or if the answer
    contains more than text, ``"continue"`` also starts the answer again.

    ``configure(thread)`` runs before every model call. It may return a dict that overrides model, instructions, tools,
    model_settings or max_steps. ``transform_messages(messages, thread)`` returns the messages to send to the model, in
    OpenAI's format. ``provider_tools`` are passed to the model unchanged; the model's vendor runs them.
    ``title(thread)`` returns a title for the thread after the first answer.

    ``tool_resolver(name, thread)`` returns the tool with this name, or None. It is for tools that no module declares,
    such as those of an MCP server. ``configure`` gives these tools to the model. For each attempt at a tool call, the
    process that runs the call gets the tool from ``tool_resolver``.

    ``on_status_change`` and ``on_commit_step`` run inside the database transaction of the change and cannot be async.
    All other callbacks run after the commit, at most once. All callbacks get keyword arguments.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str | Sequence[str],
        instructions: Text | Instructions = "",
        tools: Sequence[Tool] = (),
        model_settings: Mapping[str, object] | None = None,
        streaming: Streaming | bool = True,
        max_steps: int = 50,
        when_busy: WhenBusy = "steer",
        after_crash: StepAfterCrash = "continue",
        retry: Retry | Literal[False] | None = None,
        pool: str = "agents",
        tool_pool: str | None = None,
        public: bool = False,
        description: Text = "",
        aliases: Sequence[str] = (),
        provider_tools: Sequence[Mapping[str, object]] = (),
        transform_messages: TransformMessages | None = None,
        configure: Configure | None = None,
        tool_resolver: Callable[[str, Thread], Tool | Awaitable[Tool | None] | None] | None = None,
        title: MakeTitle | None = None,
        on_status_change: OnStatusChange | None = None,
        on_commit_step: OnCommitStep | None = None,
        on_message_complete: OnMessageComplete | None = None,
        on_turn_complete: OnTurnComplete | None = None,
        on_error: OnError | None = None,
        on_retry: OnRetry | None = None,
    ) -> None:
        self.name = name
        self.models = (model,) if isinstance(model, str) else tuple(model)
        self.instructions = instructions
        self.tools = {getattr(item, "name", ""): item for item in tools}
        self.model_settings = dict(model_settings or {})
        self.streaming = Streaming() if streaming is True else streaming or None
        self.max_steps = max_steps
        self.when_busy: WhenBusy = when_busy
        self.after_crash: StepAfterCrash = after_crash
        self.retry = ONCE if retry is False else retry or Retry()
        self.pool, self.tool_pool = pool, tool_pool
        self.public = public
        self.description = description
        self.aliases = aliases
        self.provider_tools = list(provider_tools)
        self.transform_messages = transform_messages
        self.configure = configure
        self.tool_resolver = tool_resolver
        self.title = title
        self.on_status_change = on_status_change
        self.on_commit_step = on_commit_step
        self.on_message_complete = on_message_complete
        self.on_turn_complete = on_turn_complete
        self.on_error = on_error
        self.on_retry = on_retry
        for is_wrong, sentence in self._mistakes(tools):
            if is_wrong:
                raise ImproperlyConfigured(f"Agent {name!r}: {sentence}")
        remember(self.model_settings)
        self._register()

    def _register(self) -> None:
        registry.add(self)

    def _mistakes(self, tools: Sequence[Tool]) -> Iterator[tuple[bool, str]]:
        """For each rule, yield whether this agent breaks the rule, and the error message."""
        yield (
            not _AGENT_NAME.fullmatch(self.name),
            "a name has 1 to 100 letters a-z, digits, _, - and dots, because it is part of URLs.",
        )
        yield _are_no_aliases(self.name, self.aliases)
        yield not self.models, "it needs a model: a litellm model string, or a list of them."
        yield not all(isinstance(item, Tool) for item in tools), "tools must be functions with the decorator @tool."
        yield not all(isinstance(item, Mapping) for item in self.provider_tools), "provider_tools are dicts."
        yield len(self.tools) != len(tools), "two tools have the same name. Rename one of them with @tool(name=...)."
        names = [name for key, item in self.tools.items() for name in (key, *getattr(item, "aliases", ()))]
        twice = sorted({name for name in names if names.count(name) > 1})
        yield bool(twice), f"two of its tools have the name or alias {', '.join(twice)}. Remove it from one of them."
        yield _no_word_of(self.when_busy, WhenBusy, "when_busy")
        yield _no_word_of(self.after_crash, StepAfterCrash, "after_crash")
        for name in ("on_status_change", "on_commit_step"):
            yield (
                is_async(getattr(self, name)),
                f"{name} runs inside a database transaction, so it cannot be async. Write it with def.",
            )
        for name in CALLABLES:
            declared = getattr(self, name)
            yield not (declared is None or callable(declared)), f"{name} is a function or None, not {declared!r}."
        yield (
            self.tool_resolver is not None and self.configure is None,
            "tool_resolver finds the tools again that configure has chosen for a thread. Add configure.",
        )

    def __repr__(self) -> str:
        return f"<Agent {self.name!r}>"

    @property
    def names(self) -> tuple[str, ...]:
        """The agent's name and its aliases."""
        return (self.name, *self.aliases)

    @property
    def max_attempts(self) -> int:
        """The number of attempts at one model call, over all models in the list."""
        return self.retry.attempts_per_model * len(self.models)

    def model_for(self, attempt: int) -> str:
        """Return the declared model for attempt number ``attempt``. Models from ``configure`` are ignored."""
        return model_of_attempt(self.models, attempt, attempts_per_model=self.retry.attempts_per_model)

    def find_tool(self, name: str) -> Tool | None:
        """Return the tool for a call with this name or alias, or None.

        If the agent has a ``configure`` function, all declared tools are searched, because ``configure`` can give the
        agent any tool.
        """
        if self.configure is None:
            return find_among(self.tools, name)
        # Search all tools together, so that a tool with this name is preferred to a tool with this alias, even if only
        # the latter is one of the agent's own tools.
        return find_among(registry.known_tools() | self.tools, name)

    def tool_names(self) -> frozenset[str]:
        """Return the names and aliases of all tools that this process can run for this agent.

        ``RESOLVED_TOOLS`` stands for all tools that the agent's ``tool_resolver`` finds.
        """
        chosen = registry.known_tools() if self.configure is not None else {}
        tools = [*self.tools.values(), *chosen.values()]
        resolved = [] if self.tool_resolver is None else [RESOLVED_TOOLS]
        return frozenset([*(name for item in tools for name in (item.name, *item.aliases)), *resolved])

    def pool_of(self, tool_name: str) -> str:
        """Return the pool for calls of this tool: the tool's ``pool``, or the agent's ``tool_pool`` or ``pool``."""
        declared = self.find_tool(tool_name)
        return (declared.pool if declared else None) or self.tool_pool or self.pool


class RemovedAgent(Agent):
    """A stand-in for an agent that has been removed from the code. It has the agent's name, but no model and no tools.

    The stand-in is passed to policies, which can decide by its name. It is not registered.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, model=(), public=True)

    def _mistakes(self, tools: Sequence[Tool]) -> Iterator[tuple[bool, str]]:
        return iter(())

    def _register(self) -> None:
        pass


RESOLVED_TOOLS = "*"
"""In ``Code``, this name stands for all tools that the agent's ``tool_resolver`` finds. No tool can have this name."""
Code = Mapping[str, Collection[str]]
"""The code that a process can run: for each agent's name, the names of the agent's tools. During a deploy, processes
may have different code.
"""


class Registry:
    """All declared agents and tools, by name."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}
        self._by_alias: dict[str, Agent] = {}
        # Keep only weak references. A ``configure`` function can declare new tools before every model call, and strong
        # references would let these tools fill the memory.
        self._tools: WeakValueDictionary[str, Tool] = WeakValueDictionary()

    def add(self, agent: Agent) -> None:
        """Register an agent. Raises ImproperlyConfigured if another agent has its name or one of its aliases."""
        if agent.name in self._agents:
            raise ImproperlyConfigured(f"Two agents are called {agent.name!r}. Names must be unique in a project.")
        for name in agent.names:
            other = self.find(name)
            if other is not None:
                raise ImproperlyConfigured(
                    f"The agents {other.name!r} and {agent.name!r} both have {name!r} as a name or an alias. Names and "
                    "aliases must be unique in a project."
                )
        self._agents[agent.name] = agent
        self._by_alias.update(dict.fromkeys(agent.aliases, agent))

    def remove(self, name: str) -> None:
        """Unregister an agent. Only tests need this."""
        removed = self._agents.pop(name, None)
        for alias in removed.aliases if removed else ():
            self._by_alias.pop(alias, None)

    def find(self, name: str) -> Agent | None:
        """Return the agent with this name or alias, or None."""
        return self._agents.get(name) or self._by_alias.get(name)

    def names_of(self, name: str) -> tuple[str, ...]:
        """Return all names of the agent with this name or alias: its current name and its aliases. For an unknown
        agent, return only ``name``.
        """
        agent = self.find(name)
        return agent.names if agent else (name,)

    def get(self, name: str) -> Agent:
        """Return the agent with this name or alias. Raises AgentNotFoundError."""
        agent = self.find(name)
        if agent is None:
            raise AgentNotFoundError(name)
        return agent

    def all(self) -> list[Agent]:
        """Return all agents, sorted by name."""
        return [self._agents[name] for name in sorted(self._agents)]

    def public(self) -> list[Agent]:
        """Return the agents that the API offers, sorted by name."""
        return [agent for agent in self.all() if agent.public]

    def add_tool(self, tool: Tool) -> None:
        """Register a tool for agents whose ``configure`` chooses tools. A tool with the same name is replaced."""
        self._tools[tool.name] = tool

    def find_tool(self, name: str) -> Tool | None:
        """Return the tool with this name, or None. The tool can belong to any agent or to none."""
        return self._tools.get(name)

    def known_tools(self) -> dict[str, Tool]:
        """Return all registered tools as a dict from names to tools."""
        return dict(self._tools)

    def code(self) -> Code:
        """Return the ``Code`` of this process. It contains the aliases of agents and tools, too."""
        return {name: tools for agent in self.all() for tools in [agent.tool_names()] for name in agent.names}


registry = Registry()
