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


BOTH = {"permitted_other": (PERMISSION, "other"), "chosen_staff": ["staff", is_chosen]}
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
    tools += [declared(name, needs_approval=True, approved_by=who) for name, who in BOTH.items()]
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


def permit(*people: Any) -> None:
    """Give them the permission."""
    for one in people:
        one.user_permissions.add(Permission.objects.get(codename="change_toolcall"))


def test_who_has_the_permission_but_asked_for_it_does_not_decide(ada, eve):
    """Over REST and from Python; another user with the permission does, and who lacks it does not."""
    permit(ada)
    call = waiting("permitted_other", ada)
    assert call.approved_by == f"{PERMISSION} and other"
    cem = person("cem")
    path = f"threads/{call.thread_id}/tool-calls/"
    shown = [Api(user).get(path).json()["results"][0]["approval"]["can_decide"] for user in (ada, cem, eve)]
    assert shown == [False, False, True]
    for user in (ada, cem):
        assert problem(act(Api(user), call, "approve")) == (403, "permission_denied")
        with pytest.raises(PermissionDeniedError) as error:
            approve_tool_call(call.thread, call.tool_call_id, by=user)
    assert str(error.value).endswith(
        "waits for the decision of one person who meets all of these conditions: somebody with the permission "
        f"'{PERMISSION}'; somebody other than the person who asked for it."
    )
    assert act(Api(eve), call, "approve").status_code == 200


def test_in_the_admin_all_conditions_hold_too(ada, eve):
    """Even a superuser does not decide about an own request, and reads who does."""
    root = person("root", is_staff=True, is_superuser=True)
    call = waiting("permitted_other", root)
    client = Client()
    client.force_login(root)
    page = reverse("admin:durable_agents_thread_change", args=[call.thread_id])
    assert "one person who meets all of these conditions" in client.get(page, headers={"Accept-Language": "en"}).text
    address = reverse("admin:durable_agents_toolcall_approve", args=[call.pk])
    client.post(address, {"back": "inbox"})
    call.refresh_from_db()
    assert call.status == "approval_requested"
    client.force_login(person("other_root", is_staff=True, is_superuser=True))
    client.post(address, {"back": "inbox"})
    call.refresh_from_db()
    assert call.approval_decided_by.get_username().startswith("other_root")


def test_a_function_is_one_of_several_conditions(ada, eve):
    """Who is chosen decides only as staff."""
    call = waiting("chosen_staff", ada)
    assert call.approved_by == "staff and function"
    assert registry.get("named").find_tool("chosen_staff").approved_by == ("staff", is_chosen)
    for user in (ada, eve):
        assert problem(act(Api(user), call, "approve")) == (403, "permission_denied")
    eve.is_staff = True
    eve.save()
    assert act(Api(eve), call, "approve").status_code == 200


@pytest.mark.parametrize(
    ("who", "says"),
    [
        ((), "a tuple of conditions that must all hold"),
        ([], "a tuple of conditions that must all hold"),
        (("other", "nobody"), "a tuple of conditions that must all hold"),
        (("other", is_late), "which cannot be async"),
        (("other", ("staff",)), "a tuple of conditions that must all hold"),
        (("other", "other"), "different conditions"),
        ((is_chosen, fails), "at most one of them is a callable"),
        (("owner", "staff"), "cannot combine"),
        (("a." + "b" * 120, "a." + "c" * 120), "at most 200 characters"),
    ],
)
def test_conditions_that_make_no_sense_are_refused_at_the_declaration(who, says):
    """With the reason."""
    with pytest.raises(ImproperlyConfigured, match=says):
        tool(name="act_for", needs_approval=True, approved_by=who)(lambda: None)


def test_the_project_alone_is_no_condition_among_others():
    """Nobody meets it."""
    with pytest.raises(ImproperlyConfigured, match="cannot combine 'server'"):
        tool(name="act_for", kind="deferred", answered_by=("server", "staff"))(lambda: None)


@pytest.mark.parametrize(
    "who",
    ["nobody", "shop.", "a b.c", is_late, 7, None, "x." + "y" * 200],
    ids=lambda who: getattr(who, "__name__", repr(who)),
)
def test_what_names_nobody_is_refused_at_the_declaration(who):
    """With what there is."""
    with pytest.raises(ImproperlyConfigured, match="a permission such as"):
        tool(name="act_for", needs_approval=True, approved_by=who)(lambda: None)


@pytest.mark.parametrize("who", [(), []])
def test_an_empty_list_of_those_who_answer_is_refused_and_no_default(who):
    with pytest.raises(ImproperlyConfigured, match="answered_by is one of"):
        tool(name="empty", kind="client", answered_by=who)(fails)
