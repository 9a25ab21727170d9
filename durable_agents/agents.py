"""Declare agents and tools, and find them by name in the registry.

Declarations are plain values. Nothing here touches the database, a model or the queue, and Pydantic is imported
only when a tool's schema is first needed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args, overload
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from django.core.exceptions import ImproperlyConfigured

from durable_agents.actors import User
from durable_agents.exceptions import AgentNotFoundError
from durable_agents.redaction import remember
from durable_agents.retry import ONCE, Retry
from durable_agents.strictjson import JSON, clean
from durable_agents.tool_signatures import SchemaSignature, Signature

if TYPE_CHECKING:
    from pydantic import TypeAdapter

WhenBusy = Literal["steer", "queue", "interrupt", "reject"]
AfterCrash = Literal["retry", "fail", "unknown", "ask"]
StepAfterCrash = Literal["continue", "restart"]
Kind = Literal["sync", "deferred", "client", "provider"]
Callback = Callable[..., Any]
"""One of the project's functions, with any arguments and result."""
ApproverWord = Literal["owner", "staff", "other"]
AnswererWord = Literal["server", "owner", "staff", "other"]
MAX_PERMISSION = 200
LEFT_TO_FUNCTION = "function"
"""The value stored with a call if one of the project's functions decides who may approve or answer the call."""
_PERMISSION = re.compile(r"\w+\.\w+")

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""Names that every model vendor accepts."""
_AGENT_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,99}")
"""Agent names that fit into a URL and into the database column."""


def is_async(function: Callable[..., object]) -> bool:
    """Return whether calling ``function`` returns a coroutine. It may be an object with an async ``__call__``."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


@dataclass(frozen=True, kw_only=True)
class ToolContext:
    """The context of a tool call, passed to the parameter that is annotated with this class.

    ``context`` is only set by server-side code and can be trusted. ``metadata`` is written by clients and cannot be
    trusted. ``idempotency_key`` is the same for every attempt at the same call.
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
    report: Callable[[object], None] = field(default=lambda _: None, repr=False, compare=False)
    """The engine's function that stores the progress. It does nothing if no worker runs the call, as in a test."""
    is_stopped: Callable[[], bool] = field(default=lambda: False, repr=False, compare=False)
    """The engine's function that returns the value of ``stop_requested``."""

    @classmethod
    def for_test(
        cls,
        *,
        owner: User | None = None,
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
        """Return a context for a test that calls a tool as a function. Values that are left out are made up.

        ``on_progress`` is called with each value that the tool passes to ``progress``.
        """
        return cls(
            thread_id=thread_id or uuid4(),
            message_id=message_id or uuid4(),
            tool_call_id=tool_call_id,
            tool_name=tool_name,
            agent=agent,
            owner=owner,
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
        """Whether the result is no longer needed, because the run was stopped or the call was abandoned."""
        return self.is_stopped()

    def progress(self, value: object) -> None:
        """Show users the progress of the call. ``value`` may be any JSON value, and replaces the previous value. This
        method may be called often.
        """
        self.report(value)


@dataclass(frozen=True, kw_only=True)
class Streaming:
    """The options of streaming. An answer is stored in fragments, at most one row every ``throttle_ms`` milliseconds.

    With ``tool_input_deltas``, the arguments of tool calls are also streamed while the model writes them.
    """

    throttle_ms: int = 100
    tool_input_deltas: bool = False


@dataclass(frozen=True)
class Tool:
    """A function that a model may call, under a name. Calling the tool calls the function.

    ``@tool`` makes tools of functions that are declared in a module. ``Tool(name, function, schema=...)`` is for tools
    that are found at run time, such as those of an MCP server: see the ``tool_resolver`` of agents. With a ``schema``,
    a JSON schema, the model's arguments are checked against the schema and passed on as they are.
    """

    name: str
    function: Callback
    schema: Mapping[str, object] | None = field(kw_only=True, default=None, hash=False)
    """The JSON schema of the arguments. If it is None, the schema is made of the type hints."""
    description: str = field(kw_only=True, default="")
    retry: Retry = field(kw_only=True, default=ONCE)
    timeout_seconds: float | None = field(kw_only=True, default=1800)
    after_crash: AfterCrash = field(kw_only=True, default="unknown")
    atomic: bool = field(kw_only=True, default=False)
    pool: str | None = field(kw_only=True, default=None)
    kind: str = field(kw_only=True, default="sync")
    """Who provides the result (see ``ToolKind``). The kind is ``sync`` even if the function is ``async def``."""
    needs_approval: bool | Callback = field(kw_only=True, default=False)
    approved_by: str | Callback = field(kw_only=True, default="owner")
    answered_by: str | Callback = field(kw_only=True, default="")
    """Who may post the result. By default, ``owner`` for client tools and ``server`` for others."""
    aliases: tuple[str, ...] = field(kw_only=True, default=())
    """Earlier names of the tool. Calls that were made under these names still run."""

    def __post_init__(self) -> None:
        if self.answered_by == "":
            object.__setattr__(self, "answered_by", "owner" if self.kind == "client" else "server")
        for is_wrong, sentence in self._mistakes():
            if is_wrong:
                raise ImproperlyConfigured(f"Tool {self.name!r}: {sentence}")

    def _mistakes(self) -> Iterator[tuple[bool, str]]:
        """Check the declaration. For each possible mistake yield whether it was made, and how to fix it."""
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
        yield _names_nobody(self.approved_by, ApproverWord, "approved_by")
        yield _names_nobody(self.answered_by, AnswererWord, "answered_by")
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

    def __call__(self, /, *args: object, **kwargs: object) -> Any:
        return self.function(*args, **kwargs)

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return is_async(self.function)

    @cached_property
    def signature(self) -> Signature:
        """The parameters of the function, and the rules for the model's arguments."""
        if self.schema is not None:
            return SchemaSignature(self.name, self.function, ToolContext, self.schema)
        return Signature(self.name, self.function, ToolContext)

    @property
    def context_parameter(self) -> str | None:
        """Name of the parameter that gets the ToolContext."""
        return self.signature.context_parameter

    @cached_property
    def result_adapter(self) -> TypeAdapter[object]:
        """The Pydantic adapter that converts return values to JSON. It uses the function's return annotation if there
        is one, otherwise the value's type.
        """
        from pydantic import PydanticSchemaGenerationError, TypeAdapter  # noqa: PLC0415 - web processes need no schema

        try:
            # A function without a return annotation is treated as if it returned ``Any``.
            return TypeAdapter(self.signature.hints.get("return", Any))
        except PydanticSchemaGenerationError:
            return TypeAdapter(Any)

    @cached_property
    def definition(self) -> dict[str, object]:
        """The tool as sent to models: an OpenAI function definition with a JSON schema."""
        parameters = self.signature.json_schema
        function = {"name": self.name, "description": str(self.description), "parameters": parameters}
        return {"type": "function", "function": function}

    def validate(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Return the arguments as Python values, defaults included. Raises ValueError with a text for the model if the
        arguments are invalid. With a ``schema``, the arguments are returned unchanged.
        """
        return self.signature.validate(arguments)

    @property
    def after_death(self) -> AfterCrash:
        """What happens to a call if its worker dies: ``after_crash``, or ``retry`` if the tool can safely run again.

        An interrupted atomic tool was rolled back. A client or deferred tool only asks others for a result, and may ask
        twice.
        """
        is_harmless = self.atomic or self.kind == "client"
        is_harmless = is_harmless or (self.kind == "deferred" and self.after_crash == "unknown")
        return "retry" if is_harmless else self.after_crash

    def to_json(self, value: object) -> JSON:
        """Convert a return value to JSON. Raises TypeError with a hint for a value that cannot be converted."""
        if type(value).__module__.startswith("django.db.models") or hasattr(value, "_meta"):
            raise TypeError(
                f"Tool {self.name!r} returned a {type(value).__name__}. Return values (a dict, a Pydantic model), "
                "not model instances or querysets."
            )
        try:
            dumped: object = self.result_adapter.dump_python(value, mode="json", warnings="none")
        except (ValueError, TypeError):
            # Pydantic cannot convert lazily translated texts and lone surrogates to JSON, but ``clean`` can.
            dumped = self.result_adapter.dump_python(value, mode="python", warnings="none")
        return clean(dumped)


def _no_word_of(value: str, words: object, name: str) -> tuple[bool, str]:
    known = get_args(words)
    return value not in known, f"{name} is one of {', '.join(map(repr, known))}, not {value!r}."


def _names_nobody(value: object, words: object, name: str) -> tuple[bool, str]:
    known = get_args(words)
    is_permission = isinstance(value, str) and len(value) <= MAX_PERMISSION and _PERMISSION.fullmatch(value)
    is_function = callable(value) and not is_async(value)
    is_wrong = not (is_function or is_permission or (isinstance(value, str) and value in known))
    return is_wrong, (
        f'{name} is one of {", ".join(map(repr, known))}, a permission such as "shop.approve_refund" or a callable'
        f"(user, call), which cannot be async; not {value!r}."
    )


def _are_no_aliases(name: str, aliases: object) -> tuple[bool, str]:
    is_list = isinstance(aliases, list | tuple) and all(isinstance(alias, str) and alias for alias in aliases)
    names = [name, *(aliases if isinstance(aliases, list | tuple) else ())]
    is_wrong = not is_list or any(names.count(alias) > 1 for alias in names)
    return is_wrong, f"aliases is a list of its earlier names, each once and without {name!r}; not {aliases!r}."


def find_among(tools: Mapping[str, Tool], name: str) -> Tool | None:
    """Return the tool with this name, or else the tool that has this name as an alias, or None."""
    return tools.get(name) or next((item for item in list(tools.values()) if name in item.aliases), None)


def stored_who(who: str | Callback) -> str:
    """Return the text that is stored with a call for this value of ``approved_by`` or ``answered_by``."""
    return LEFT_TO_FUNCTION if callable(who) else who


@overload
def tool(function: Callable[..., object], /) -> Tool: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    schema: Mapping[str, object] | None = None,
    retry: Retry | None = None,
    timeout_seconds: float | None = 1800,
    after_crash: AfterCrash = "unknown",
    atomic: bool = False,
    pool: str | None = None,
    kind: Kind = "sync",
    needs_approval: bool | Callback = False,
    approved_by: str | Callback = "owner",
    answered_by: str | Callback | None = None,
    aliases: Sequence[str] = (),
) -> Callable[[Callable[..., object]], Tool]: ...


def tool(
    function: Callable[..., object] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    schema: Mapping[str, object] | None = None,
    retry: Retry | None = None,
    timeout_seconds: float | None = 1800,
    after_crash: AfterCrash = "unknown",
    atomic: bool = False,
    pool: str | None = None,
    kind: Kind = "sync",
    needs_approval: bool | Callback = False,
    approved_by: str | Callback = "owner",
    answered_by: str | Callback | None = None,
    aliases: Sequence[str] = (),
) -> Tool | Callable[[Callable[..., object]], Tool]:
    """Make a tool of a function, sync or async.

    The model gets the function's name, its docstring and the JSON schema of its type hints. ``timeout_seconds`` limits
    each attempt; None means no limit. ``schema`` is a JSON schema to use instead of that of the type hints: arguments
    are checked against it, and the function gets them as they are.

    ``after_crash`` says what happens to a call if the worker dies while the tool runs. ``retry`` runs the tool again
    with the same ``ctx.idempotency_key``. ``fail`` fails the call. ``unknown``, the default, ends the call and tells
    the model that the tool may have run. With ``ask`` the run waits until a person settles the call
    (``settle_tool_call``).

    An ``atomic`` tool must be sync. Its changes and its outcome are committed in one database transaction. If the
    worker dies before the commit, the tool runs again. So the tool changes the database exactly once, even if processes
    die. On SQLite the tool holds the only write lock while it runs, so it should be short.

    ``kind`` says who provides the result. ``sync``: the function returns it, in a worker; the function may be
    ``async def``. ``deferred``: the function only starts the work, and other code calls ``add_tool_result`` later.
    ``client``: the browser provides the result; the function is never called, and its signature is the schema.
    ``answered_by`` says who may post the result of a deferred or client tool over the API: nobody (``server``, the
    default), the thread's ``owner`` (the default of client tools), ``staff``, or anything else that ``approved_by``
    accepts.

    ``needs_approval`` makes a call wait until a person approves it. It is True, or a callable(ctx, args) -> bool, sync
    or async. ``approved_by`` says who may approve: the thread's ``owner`` and staff, only ``staff``, any user ``other``
    than the one who asked, users with a permission such as ``"shop.approve_refund"``, or a callable(user, call) ->
    bool. The callable runs for each viewer and inside the decision's transaction, so it should be quick. If it raises,
    nobody may approve.

    ``aliases`` are earlier names of the tool. Open calls that were made under these names still run. The model gets
    only the current name, also for earlier calls in its history.
    """

    def declare(target: Callable[..., object]) -> Tool:
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
            answered_by=answered_by or "",
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
    """Return the model for attempt number ``attempt``, counted from 1. With four attempts per model, attempts 1 to 4
    use the first model, attempts 5 to 8 use the second model, and so on. Later attempts use the last model.
    """
    return models[min((attempt - 1) // attempts_per_model, len(models) - 1)]


class Agent:
    """A model, its instructions and its tools, under a name. Creating an agent registers it.

    ``model`` is a litellm model string, or a list of them. The next model of a list is called when the attempts at the
    model before it are used up, or when another attempt at that model cannot succeed.
    ``instructions`` is a text or a callable(thread) -> text. ``model_settings`` are passed to the model call.
    ``max_steps`` limits the model calls of one run. ``when_busy`` says what happens to a new message during a run.
    A second agent of the same name raises ImproperlyConfigured. ``aliases`` are earlier names of the agent. Threads
    that were created under these names belong to the agent.

    ``after_crash`` says what happens when a worker dies in the middle of an answer. With ``"continue"`` the next
    attempt continues the stored text, if the model supports that and the answer is only text so far. Otherwise, and
    always with ``"restart"``, the answer is generated again from the beginning.

    Before every model call ``configure(thread)`` may return a dict that overrides model, instructions, tools,
    model_settings or max_steps, and ``transform_messages(messages, thread)`` may return other messages in the OpenAI
    format. ``provider_tools`` are passed to the model unchanged, and the model's vendor runs them. ``title(thread)``
    returns a title for the thread after the first answer.

    With ``tool_resolver``, ``configure`` may also return tools that no module declares, such as those of an MCP server.
    ``tool_resolver(name, thread)`` returns the tool of this name, or None if the thread no longer has it. It is called
    for each attempt at a call of such a tool, in whichever process runs the call.

    ``on_status_change`` and ``on_commit_step`` run inside the transaction of the change and cannot be async. The other
    callbacks run after the commit, at most once. All callbacks are called with keyword arguments.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str | Sequence[str],
        instructions: str | Callable[..., object] = "",
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
        description: str = "",
        aliases: Sequence[str] = (),
        provider_tools: Sequence[Mapping[str, object]] = (),
        transform_messages: Callback | None = None,
        configure: Callback | None = None,
        tool_resolver: Callback | None = None,
        title: Callback | None = None,
        on_status_change: Callback | None = None,
        on_commit_step: Callback | None = None,
        on_message_complete: Callback | None = None,
        on_turn_complete: Callback | None = None,
        on_error: Callback | None = None,
        on_retry: Callback | None = None,
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
        registry.add(self)

    def _mistakes(self, tools: Sequence[Tool]) -> Iterator[tuple[bool, str]]:
        """Check the declaration. For each possible mistake yield whether it was made, and how to fix it."""
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
        """The agent's name, followed by its earlier names."""
        return (self.name, *self.aliases)

    @property
    def max_attempts(self) -> int:
        """The number of attempts at one model call, with all models of the list."""
        return self.retry.attempts_per_model * len(self.models)

    def model_for(self, attempt: int) -> str:
        """Return the agent's own model for attempt number ``attempt``. Overrides by ``configure`` are ignored."""
        return model_of_attempt(self.models, attempt, attempts_per_model=self.retry.attempts_per_model)

    def find_tool(self, name: str) -> Tool | None:
        """Return the tool that a call of this name runs, or None. First look among the agent's own tools. If the agent
        has ``configure``, which may add any tool, then look among all declared tools. The name may be an alias.
        """
        if self.configure is None:
            return find_among(self.tools, name)
        # ``configure`` may return a tool that has this name, so names take precedence over aliases.
        return find_among(registry.known_tools() | self.tools, name)

    def tool_names(self) -> frozenset[str]:
        """Return the names and aliases of all tools that this process can run for this agent. If it can also run tools
        of a resolver, the set contains ``RESOLVED_TOOLS``.
        """
        chosen = registry.known_tools() if self.configure is not None else {}
        tools = [*self.tools.values(), *chosen.values()]
        resolved = [] if self.tool_resolver is None else [RESOLVED_TOOLS]
        return frozenset([*(name for item in tools for name in (item.name, *item.aliases)), *resolved])

    def pool_of(self, tool_name: str) -> str:
        """Return the pool in which a call of this tool runs: the tool's own, else ``tool_pool``, else ``pool``."""
        declared = self.find_tool(tool_name)
        return (declared.pool if declared else None) or self.tool_pool or self.pool


RESOLVED_TOOLS = "*"
"""In ``Code``, this name stands for all tools that the agent's ``tool_resolver`` finds. No tool can have this name."""
Code = Mapping[str, Collection[str]]
"""The code that a process can run: the names of its agents, each with the names of its tools. During a deploy,
processes may have different code.
"""


class Registry:
    """All declared agents and tools, by name."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}
        self._by_alias: dict[str, Agent] = {}
        # References are weak, because ``configure`` may declare new tools at every call and would fill the memory.
        self._tools: WeakValueDictionary[str, Tool] = WeakValueDictionary()

    def add(self, agent: Agent) -> None:
        """Register an agent. Raises ImproperlyConfigured if another agent has one of its names or aliases."""
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
        """Return the agent of this name or alias, or None if this process does not know it."""
        return self._agents.get(name) or self._by_alias.get(name)

    def names_of(self, name: str) -> tuple[str, ...]:
        """Return the current name and the aliases of the agent that has this name or alias. Return only ``name`` if
        this process does not know the agent.
        """
        agent = self.find(name)
        return agent.names if agent else (name,)

    def get(self, name: str) -> Agent:
        """Return the agent of this name or alias. Raises AgentNotFoundError."""
        agent = self.find(name)
        if agent is None:
            raise AgentNotFoundError(name)
        return agent

    def all(self) -> list[Agent]:
        """Return all agents, by name."""
        return [self._agents[name] for name in sorted(self._agents)]

    def public(self) -> list[Agent]:
        """Return the agents that the API offers, by name."""
        return [agent for agent in self.all() if agent.public]

    def add_tool(self, tool: Tool) -> None:
        """Register a tool for agents whose ``configure`` chooses tools. The tool replaces any earlier
        tool of the same name.
        """
        self._tools[tool.name] = tool

    def find_tool(self, name: str) -> Tool | None:
        """Return the tool of this name, or None. The tool may belong to any agent."""
        return self._tools.get(name)

    def known_tools(self) -> dict[str, Tool]:
        """Return all registered tools, by name."""
        return dict(self._tools)

    def code(self) -> Code:
        """Return the names and aliases of the agents that this process can run, each with the names of its tools."""
        return {name: tools for agent in self.all() for tools in [agent.tool_names()] for name in agent.names}


registry = Registry()
