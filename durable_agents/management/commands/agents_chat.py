"""``manage.py agents_chat``: a conversation with an agent in the terminal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from threading import Timer

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.management.color import Style

from durable_agents import lifecycle
from durable_agents.actors import User
from durable_agents.agents import registry
from durable_agents.exceptions import AgentNotFoundError, DurableAgentsError, ThreadNotFoundError
from durable_agents.models import Stream, Thread, ToolCall, ToolCallStatus, ToolKind
from durable_agents.parts import Chunk
from durable_agents.reading import stream_thread
from durable_agents.transcript import get_thread

SILENCE_SECONDS = 5
"""After this time without an answer, the command asks whether a worker is running."""
MAX_SHOWN_CHARS = 2000
_CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in [*range(32), *range(127, 160)] if chr(code) not in "\n\t"}


class Command(BaseCommand):
    """Sends each line to an agent, and prints the answer while the model writes it.

    Workers run the agent, as they do for a browser. The command only stores messages and decisions, and follows the
    thread. It has the rights of the project's own code, so it can approve every tool call.
    """

    help = "Talk to an agent in the terminal. Workers must be running: manage.py qcluster."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options of this command."""
        parser.add_argument("agent", help="The name of an agent.")
        parser.add_argument("--user", metavar="USERNAME", help="The user who owns the new thread and sends messages.")
        parser.add_argument("--scope", default="", help="The scope of the new thread.")
        parser.add_argument("--thread", metavar="ID", help="Continue this thread of the agent.")

    def handle(self, *args: object, **options: object) -> None:
        """Talk until the input ends, or until Ctrl-C at the prompt."""
        try:
            agent = registry.get(str(options["agent"])).name
        except AgentNotFoundError as error:
            names = ", ".join(item.name for item in registry.all()) or "none"
            raise CommandError(f"{error} Agents: {names}.") from error
        chat = Conversation(agent, self.style, self._write)
        if options["user"]:
            users = get_user_model()
            chat.user = users._default_manager.filter(**{users.USERNAME_FIELD: options["user"]}).first()
            if chat.user is None:
                raise CommandError(f"There is no user {options['user']!r}.")
        if options["thread"]:
            chat.thread = _thread(agent, options["thread"])
        chat.scope = str(options["scope"])
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            if chat.thread is not None and chat.thread.is_running:
                chat.follow(chat.thread)
            while True:
                if text := input("> ").strip():
                    chat.say(text)
        if chat.thread is not None:
            self.stdout.write(f"\nContinue with: manage.py agents_chat {agent} --thread {chat.thread.pk}")

    def _write(self, text: str) -> None:
        self.stdout.write(text, ending="")
        self.stdout.flush()


def _thread(agent: str, thread_id: object) -> Thread:
    try:
        thread = get_thread(str(thread_id))
    except (ThreadNotFoundError, ValidationError) as error:
        raise CommandError(str(error)) from error
    if thread.agent != agent:
        raise CommandError(f"The thread {thread.pk} belongs to the agent {thread.agent!r}.")
    return thread


class Conversation:
    """Sends messages to an agent, prints its answers, and asks the person at the terminal about tool calls."""

    def __init__(self, agent: str, style: Style, write: Callable[[str], None]) -> None:
        self.user: User = None
        """The owner of a new thread and the sender of messages, or None."""
        self.scope = ""
        self.thread: Thread | None = None
        self._agent = agent
        self._style = style
        self._write = write
        self._names: dict[str, str] = {}
        """The tool's name for each tool call, by ``tool_call_id``."""

    def say(self, text: str) -> None:
        """Send a message and print the answer. The first message creates a thread."""
        try:
            if self.thread is None:
                self.thread = lifecycle.create_thread(
                    self._agent, owner=self.user, scope=self.scope, prompt=text, by=self.user
                )
            else:
                lifecycle.send_message(self.thread, text, by=self.user)
        except DurableAgentsError as error:
            self._write(self._style.ERROR(f"{error}\n"))
            return
        self.follow(self.thread)

    def follow(self, thread: Thread) -> None:
        """Print the latest answer of a thread until its run is over. Ctrl-C stops the run."""
        hint = Timer(SILENCE_SECONDS, self._write, ["(No answer yet. Is a worker running? manage.py qcluster)\n"])
        hint.daemon = True
        hint.start()
        try:
            for _, chunk in stream_thread(thread):
                if chunk["type"] not in {"start", "start-step"}:
                    hint.cancel()
                self.show(chunk)
                if chunk["type"] in {"tool-input-available", "tool-approval-request"}:
                    self.ask(thread, chunk["toolCallId"])
                if chunk["type"] == "error":
                    self.explain(thread)
        except KeyboardInterrupt:
            lifecycle.stop_thread(thread)
            self._write("\n(stopped)\n")
        finally:
            hint.cancel()

    def explain(self, thread: Thread) -> None:
        """Print the thread's error code, and the details of the error. End users see only a general text."""
        current = get_thread(thread)
        stream = Stream.objects.using(lifecycle.database()).filter(thread=thread).order_by("number").last()
        detail = _brief(stream.error_detail) if stream is not None and stream.error_code == current.error_code else ""
        self._write(f"({current.error_code}{detail and ': '}{detail})\n")

    def show(self, chunk: Chunk) -> None:
        """Print a chunk if it contains something for a person to read."""
        match chunk["type"]:
            case "text-delta":
                self._write(_plain(chunk["delta"]))
            case "reasoning-delta":
                self._write(self._style.HTTP_INFO(_plain(chunk["delta"])))
            case "text-end" | "reasoning-end":
                self._write("\n")
            case "reset-step":
                self._write(self._style.WARNING("\n(The attempt failed. Another one begins.)\n"))
            case "error":
                self._write(self._style.ERROR(f"{_plain(chunk['errorText'])}\n"))
            case "abort":
                self._write("(stopped)\n")
            case _:
                self.show_call(chunk)

    def show_call(self, chunk: Chunk) -> None:
        """Print a chunk about a tool call: its arguments, its progress or its outcome."""
        if chunk["type"] == "tool-input-available":
            self._names[chunk["toolCallId"]] = _plain(chunk["toolName"])
        name = self._names.get(str(chunk.get("toolCallId")), "the tool")
        match chunk["type"]:
            case "tool-input-available":
                self._write(self._style.MIGRATE_LABEL(f"[{name}] {_brief(chunk['input'])}\n"))
            case "tool-output-available":
                sign = "..." if chunk.get("preliminary") else "->"
                self._write(f"[{name}] {sign} {_brief(chunk['output'])}\n")
            case "tool-output-error":
                self._write(self._style.ERROR(f"[{name}] {_plain(chunk['errorText'])}\n"))
            case "tool-output-denied":
                self._write(f"[{name}] rejected\n")

    def ask(self, thread: Thread, tool_call_id: str) -> None:
        """If the call waits for an approval, ask for a decision. If the call waits for a result from the browser, ask
        for the result.
        """
        call = ToolCall.objects.using(lifecycle.database()).get(thread=thread, tool_call_id=tool_call_id)
        try:
            if call.status == ToolCallStatus.APPROVAL_REQUESTED:
                answer = input(f"Approve {_plain(call.tool_name)}? [y/N, or a reason to reject] ").strip()
                if answer.lower() not in {"y", "yes"}:
                    reason = "" if answer.lower() in {"n", "no"} else answer
                    lifecycle.reject_tool_call(thread, tool_call_id, by=None, reason=reason)
                    return
                call = lifecycle.approve_tool_call(thread, tool_call_id, by=None)
            if call.kind == ToolKind.CLIENT and call.status == ToolCallStatus.PENDING:
                result: object = input(f"Result of {_plain(call.tool_name)}, as JSON or text: ")
                with contextlib.suppress(ValueError):
                    result = json.loads(str(result))
                lifecycle.add_tool_result(thread, tool_call_id, result)
        except DurableAgentsError as error:  # for example, somebody else has decided first
            self._write(self._style.ERROR(f"{error}\n"))


def _brief(value: object) -> str:
    text = _plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


def _plain(text: str) -> str:
    """Replace control characters. Otherwise, text from a model or a tool could take over the terminal."""
    return text.translate(_CONTROL)
