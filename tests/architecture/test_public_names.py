"""The names that users import from `durable_agents` exist, none by accident, and each function has a twin."""

import inspect
import subprocess
import sys

import pytest

import durable_agents
from durable_agents import testing
from tests.architecture.sources import ROOT

FUNCTIONS = {
    *("create_thread", "send_message", "add_message", "resume_thread", "stop_thread", "get_thread", "list_threads"),
    *("list_messages", "list_messages_with_streams", "stream_thread", "wait_for_thread", "delete_thread"),
    *("add_tool_result", "add_tool_error", "set_tool_call_timeout", "approve_tool_call", "reject_tool_call"),
    *("settle_tool_call", "regenerate", "edit_message", "update_thread", "fork_thread", "export_thread", "erase"),
}
PROMISED = {
    "create_thread": "agent, *, owner=None, scope='', prompt=None, parts=None, messages=None, start=None, "
    "client_id=None, title='', metadata=None, context=None",
    "send_message": "thread, prompt=None, *, parts=None, client_id=None, metadata=None, context=None",
    "add_message": "thread, role, parts",
    "resume_thread": "thread, prompt=None",
    "stop_thread": "thread",
    "get_thread": "thread",
    "update_thread": "thread, *, title=None, archived=None, metadata=None, context=None",
    "list_threads": "*, owner=None, scope=None, agent=None, status=None",
    "list_messages": "thread, *, after=None, limit=None, include_system=False",
    "list_messages_with_streams": "thread, *, from_number=0",
    "stream_thread": "thread, cursor=None",
    "wait_for_thread": "thread, timeout_seconds=30",
    "delete_thread": "thread",
    "add_tool_result": "thread, tool_call_id, result",
    "add_tool_error": "thread, tool_call_id, error",
    "set_tool_call_timeout": "thread, tool_call_id, seconds",
    "approve_tool_call": "thread, tool_call_id, *, by, arguments=None, reason=''",
    "reject_tool_call": "thread, tool_call_id, *, by, reason=''",
    "settle_tool_call": "thread, tool_call_id",
    "regenerate": "thread, message_id=None",
    "edit_message": "thread, message_id, parts",
    "fork_thread": "thread, at=None, owner=None",
    "export_thread": "thread",
    "erase": "*, owner=None, scope=None",
}
"""How each function may be called, for good."""
VALUES = {
    *("Agent", "Streaming", "Tool", "ToolContext", "tool", "Retry", "RetryIn", "Fail"),
    *("DurableAgentsError", "ThreadNotFoundError", "AgentNotFoundError", "ThreadBusyError", "ToolCallNotFoundError"),
    "AgentRemovedError",
    *("ToolCallNotPendingError", "ApprovalExpiredError", "InvalidPartsError", "PermissionDeniedError"),
    *(
        "TooLargeError",
        "ThrottledError",
        "ToolError",
        "WaitTimeoutError",
        "IdempotencyKeyReusedError",
        "InvalidCursorError",
    ),
    *("InvalidJSONObjectError", "MessageNotFoundError", "ToolChangedError"),
    *("thread_status_changed", "message_committed", "step_finished", "tool_call_finished"),
}
TEST_KIT = {
    *("ScriptedModel", "says", "thinks", "calls", "fails", "hangs", "does", "ends", "ModelUsage"),
    *("run_until_idle", "arun_until_idle", "Ran", "crash_at", "crash", "POINTS", "SimulatedCrash"),
    *("NoScriptedModelError", "NotIdleError", "OutOfAnswersError"),
}
EXPORTED = sorted(durable_agents.__all__)
EXPORTED_FUNCTIONS = [name for name in EXPORTED if name in FUNCTIONS]


def twins(names):
    """Return the names of the twins of these functions."""
    return {f"a{name}" for name in names}


def test_nothing_is_exported_by_accident():
    """A name that somebody uses can never be taken back."""
    assert set(EXPORTED) - VALUES - FUNCTIONS - twins(FUNCTIONS) == set()


def test_what_was_promised_is_exported():
    """A name that was lost breaks somebody's project."""
    assert (VALUES | FUNCTIONS | twins(FUNCTIONS)) - set(EXPORTED) == set()


@pytest.mark.parametrize("name", EXPORTED)
def test_every_exported_name_exists(name):
    """Names are loaded lazily, so a stale one would only fail in somebody's project."""
    assert getattr(durable_agents, name) is not None


@pytest.mark.parametrize("name", EXPORTED)
def test_every_exported_function_and_class_is_documented(name):
    """The docstring is the contract."""
    exported = getattr(durable_agents, name)
    if inspect.isroutine(exported) or inspect.isclass(exported):
        assert inspect.getdoc(exported)


@pytest.mark.parametrize("name", EXPORTED_FUNCTIONS)
def test_every_function_has_a_twin_with_its_arguments(name):
    """What one can be asked, the other can."""
    function, async_version = getattr(durable_agents, name), getattr(durable_agents, f"a{name}")
    assert async_version.__name__ == f"a{name}"
    returned = inspect.signature(async_version).return_annotation
    assert inspect.iscoroutinefunction(async_version) or returned.startswith("AsyncIterator")
    assert inspect.signature(async_version).parameters == inspect.signature(function).parameters


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_takes_the_arguments_that_were_promised(name):
    """In their order, with their defaults; what came later is optional and by name."""
    scope: dict[str, object] = {}
    exec(f"def promised({PROMISED[name]}): ...", scope)
    promised = inspect.signature(scope["promised"]).parameters
    taken = inspect.signature(getattr(durable_agents, name)).parameters
    empty = inspect.Parameter.empty
    assert [key for key in taken if key in promised] == list(promised)
    for key, parameter in promised.items():
        assert (taken[key].kind, key) == (parameter.kind, key)
        assert parameter.default in {empty, taken[key].default}
    more = [parameter for key, parameter in taken.items() if key not in promised]
    assert all(parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not empty for parameter in more)


def test_functions_import_before_the_app_registry_is_ready():
    """In settings, in `agents.py`, in `models.py`; they are called later."""
    names = ", ".join(name for name in EXPORTED if name not in VALUES)
    code = f"from durable_agents import {names}\nimport django\nfrom django.apps import apps\nassert not apps.ready"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_function_imported_early_works_later(child_env):
    """It finds its module when it is called."""
    code = "from durable_agents import get_thread\nimport django\ndjango.setup()\nget_thread('no id')"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=child_env, capture_output=True, text=True, check=False
    )
    assert "ThreadNotFoundError" in result.stderr


def test_an_unknown_name_is_an_attribute_error():
    """The lazy door behaves as a module does."""
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = durable_agents.no_such_name


def test_the_exported_names_are_listed_by_dir():
    """A shell completes them."""
    assert set(EXPORTED) <= set(dir(durable_agents))


def test_the_test_kit_has_the_names_that_its_page_uses():
    """And none by accident."""
    assert set(testing.__all__) == TEST_KIT
    assert {name for name in TEST_KIT if not hasattr(testing, name)} == set()
