"""``approved_by`` and ``answered_by`` as a permission or as a function of the project, at every edge."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from django.urls import reverse

from durable_agents import Agent, PermissionDeniedError, approve_tool_call, create_thread, reject_tool_call, tool
from durable_agents.agents import registry
from durable_agents.models import Thread, ToolCall
from durable_agents.policies import OwnerPolicy
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.api.calls import Api, act, person, problem
from tests.tools.outcomes import SharedPolicy

pytestmark = pytest.mark.django_db

PERMISSION = "durable_agents.change_toolcall"
SEEN: list[tuple[Any, str]] = []


class Shared(SharedPolicy):
    """Everybody sees every thread; who owns one is known."""

    def owner_and_scope(self, request: Any) -> tuple[Any, str]:
        """Return the caller."""
        return OwnerPolicy.owner_and_scope(self, request)


def is_chosen(user: Any, call: ToolCall) -> bool:
    """Choose by the call's arguments and the user."""
    SEEN.append((user, call.tool_name))
    return f"{call.arguments['name']}@example.org" == user.get_username()


def fails(user: Any, call: ToolCall) -> bool:
    """Fail."""
    raise LookupError(user)


async def is_late(user: Any, call: ToolCall) -> bool:
    """Need a loop."""
    return True


WHO = {"permitted": PERMISSION, "chosen": is_chosen, "failing": fails}


@pytest.fixture(autouse=True)
def _agent(settings: Any) -> Iterator[None]:
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.Shared"}
    SEEN.clear()

    def declared(name: str, **options: Any) -> Any:
        def act_for(name: str) -> str:
            """Act for somebody."""
            return name

        return tool(name=name, **options)(act_for)

    tools = [declared(f"approved_{name}", needs_approval=True, approved_by=who) for name, who in WHO.items()]
    tools += [declared(f"answered_{name}", kind="deferred", answered_by=who) for name, who in WHO.items()]
    Agent("named", model="openai/x", tools=tools, public=True)
    yield
    registry.remove("named")


@pytest.fixture
def eve() -> Any:
    """Return who has the permission and is no staff; functions choose her too."""
    eve = person("eve")
    eve.user_permissions.add(Permission.objects.get(codename="change_toolcall"))
    return eve


@pytest.fixture
def ada() -> Any:
    """Return the owner of the thread, who is staff."""
    return person("ada", is_staff=True)


def waiting(name: str, owner: Any) -> ToolCall:
    """Return a call of this tool that waits, in a thread of the owner's."""
    with ScriptedModel(calls(name, name="eve"), *["Done."] * 3):
        thread = create_thread("named", owner=owner, prompt="Please.")
        run_until_idle()
    return ToolCall.objects.select_related("thread").get(thread=thread)


@pytest.mark.parametrize("name", ["approved_permitted", "approved_chosen"])
@pytest.mark.parametrize("decide", [approve_tool_call, reject_tool_call])
def test_from_python_whom_the_tool_names_decides_and_nobody_else(name, decide, ada, eve):
    """Neither the owner nor staff."""
    call = waiting(name, ada)
    with pytest.raises(PermissionDeniedError):
        decide(call.thread, call.tool_call_id, by=ada)
    decide(call.thread, call.tool_call_id, by=eve)
    call.refresh_from_db()
    assert call.approval_decided_by == eve


@pytest.mark.parametrize("name", ["approved_permitted", "approved_chosen"])
def test_over_rest_whom_the_tool_names_decides_and_nobody_else(name, ada, eve):
    """`can_decide` says so beforehand."""
    call = waiting(name, ada)
    path = f"threads/{call.thread_id}/tool-calls/"
    shown = [Api(user).get(path).json()["results"][0]["approval"]["can_decide"] for user in (ada, eve)]
    assert shown == [False, True]
    assert problem(act(Api(ada), call, "approve")) == (403, "permission_denied")
    assert problem(act(Api(), call, "approve")) == (403, "permission_denied")
    assert act(Api(eve), call, "approve").status_code == 200


@pytest.mark.parametrize("name", ["answered_permitted", "answered_chosen"])
def test_over_rest_whom_the_tool_names_answers_and_nobody_else(name, ada, eve):
    """With a result."""
    call = waiting(name, ada)
    assert problem(act(Api(ada), call, "result", {"result": "x"})) == (403, "permission_denied")
    assert act(Api(eve), call, "result", {"result": "x"}).status_code == 200


@pytest.mark.parametrize("name", ["approved_failing", "answered_failing"])
def test_where_the_function_fails_nobody_may(name, ada, eve, caplog):
    """It is logged."""
    call = waiting(name, ada)
    asked = ("approve", {}) if name.startswith("approved") else ("result", {"result": "x"})
    assert problem(act(Api(eve), call, *asked)) == (403, "permission_denied")
    assert any("nobody may" in record.getMessage() for record in caplog.records)


def test_the_function_gets_the_user_and_the_call(ada, eve):
    """The user is the row; a visitor is Django's anonymous one."""
    call = waiting("approved_chosen", ada)
    act(Api(eve), call, "approve")
    act(Api(), call, "approve")
    assert SEEN[0] == (eve, "approved_chosen")
    assert SEEN[-1][0].is_anonymous


def test_a_superuser_has_every_permission(ada):
    """As Django says."""
    call = waiting("approved_permitted", ada)
    approve_tool_call(call.thread, call.tool_call_id, by=person("root", is_superuser=True))


def test_a_function_that_is_gone_leaves_it_to_the_project_alone(ada, eve):
    """Since nobody can say who may."""
    call = waiting("approved_chosen", ada)
    registry.remove("named")
    Agent("named", model="openai/x", public=True)
    with pytest.raises(PermissionDeniedError):
        approve_tool_call(call.thread, call.tool_call_id, by=eve)
    assert reject_tool_call(call.thread, call.tool_call_id, by=None).status == "denied"


def test_in_the_admin_staff_without_the_permission_are_refused(ada, eve):
    """Those with it are not."""
    call = waiting("approved_permitted", eve)
    address = reverse("admin:durable_agents_toolcall_approve", args=[call.pk])
    helper = person("helper", is_staff=True)
    for codename in ("change_thread", "view_thread", "view_toolcall"):
        helper.user_permissions.add(Permission.objects.get(codename=codename))
    client = Client()
    client.force_login(helper)
    client.post(address, {"back": "inbox"})
    assert Thread.objects.get().tool_calls.get().status == "approval_requested"
    root = person("root", is_staff=True, is_superuser=True)
    client.force_login(root)
    client.post(address, {"back": "inbox"})
    assert Thread.objects.get().tool_calls.get().approval_decided_by == root


@pytest.mark.parametrize(
    "who",
    ["nobody", "shop.", "a b.c", is_late, 7, None, "x." + "y" * 200],
    ids=lambda who: getattr(who, "__name__", repr(who)),
)
def test_what_names_nobody_is_refused_at_the_declaration(who):
    """With what there is."""
    with pytest.raises(ImproperlyConfigured, match="a permission such as"):
        tool(name="act_for", needs_approval=True, approved_by=who)(lambda: None)
