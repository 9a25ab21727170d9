"""Calls that wait for somebody are answered over REST: by those to whom their tool leaves it, once, in time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now

from durable_agents import stop_thread, tool
from durable_agents.models import ToolCall
from durable_agents.policies import OwnerPolicy
from tests.api.calls import BODIES, KINDS, Api, act, all_pages, person, problem, waiting_call
from tests.api.operations import queries
from tests.lifecycle.stage import status_of

pytestmark = pytest.mark.django_db

APPROVALS, ANSWERS = ("approve", "reject"), ("result", "error")
STATUS_AFTER = {
    "result": "completed",
    "error": "failed",
    "approve": "pending",
    "reject": "denied",
    "timeout": "pending",
}


class SharedPolicy(OwnerPolicy):
    """Shows everybody's threads to everybody who is signed in."""

    def filter(self, queryset: Any, request: Any) -> Any:
        """Return all of them."""
        return queryset if request.user.is_authenticated else queryset.none()


@pytest.fixture
def shared(settings: Any) -> None:
    """Let everybody see every thread, so that only the rights about its calls keep them apart."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.SharedPolicy"}


@pytest.fixture
def changed_plain(agent: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that gives the agent's tool another signature."""

    @tool(name="plain")
    def changed(city: str) -> str:
        """Do the same for a city."""
        return city

    return lambda: monkeypatch.setitem(agent.tools, "plain", changed)


@pytest.fixture
def staff(db: None) -> Api:
    """Return the API as a member of staff sees it."""
    return Api(person("staff", is_staff=True))


def facts_left_to(action: str, who: str) -> dict[str, Any]:
    """Return what makes a call one to which `action` fits, and leaves it to `who`."""
    if action in APPROVALS:
        return KINDS[action] | {"approved_by": who}
    return KINDS[action] | {"answered_by": who}


# Who may do what: for each action and each to whom the tool can leave it, those who are let in.
RIGHTS = [
    *((action, "owner", {"api", "staff"}) for action in (*APPROVALS, *ANSWERS)),
    *((action, "staff", {"staff"}) for action in (*APPROVALS, *ANSWERS, "timeout")),
    *((action, "server", set()) for action in ANSWERS),
    *(("timeout", who, {"staff"}) for who in ("owner", "server")),
]


@pytest.mark.parametrize("caller", ["api", "stranger", "staff"])
@pytest.mark.parametrize(("action", "left_to", "allowed"), RIGHTS)
def test_who_may_do_what(request, agent, me, shared, caller, action, left_to, allowed):
    """To those who may view the thread; all others are told that they may not, and nothing happens."""
    call = waiting_call(me, **facts_left_to(action, left_to))
    before = list(ToolCall.objects.values())
    response = act(request.getfixturevalue(caller), call, action)
    if caller in allowed:
        assert response.status_code == 200, response.content
        assert response.json()["status"] == STATUS_AFTER[action]
    else:
        assert problem(response) == (403, "permission_denied")
        assert list(ToolCall.objects.values()) == before


@pytest.mark.parametrize("action", BODIES)
def test_a_foreign_call_is_not_found_and_an_anonymous_caller_is_turned_away(agent, me, stranger, staff, action):
    """By default nobody but the owner sees a thread, staff included."""
    call = waiting_call(me, **KINDS[action])
    for caller in (stranger, staff):
        assert problem(act(caller, call, action)) == (404, "thread_not_found")
    assert act(Api(), call, action).status_code in {401, 403}
    call.refresh_from_db()
    assert call.finished_at is None


@pytest.mark.parametrize("action", ["result", "error", "approve", "reject"])
def test_a_call_of_another_thread_is_not_found(api, agent, me, action):
    """Ids resolve inside their thread only, whatever they are made of."""
    call, other = (waiting_call(me, **KINDS[action]) for _ in range(2))
    for tool_call_id in (other.tool_call_id, "call_none", "%00", "%F0%9F%90%B3"):
        path = f"threads/{call.thread_id}/tool-calls/{tool_call_id}/{action}/"
        assert problem(api.post(path, BODIES[action])) == (404, "tool_call_not_found")


class GuestPolicy(OwnerPolicy):
    """Lets everybody in; threads belong to nobody and to the scope that a header names."""

    def filter(self, queryset: Any, request: Any) -> Any:
        """Return the guests' threads."""
        return queryset.filter(owner=None)

    def allows(self, request: Any, action: str, **_: Any) -> bool:
        """Everything."""
        return True

    def owner_and_scope(self, request: Any) -> tuple[Any, str]:
        """Nobody's, of this guest's scope."""
        return None, request.headers.get("X-Guest", "")


@pytest.mark.parametrize("is_signed_in", [False, True])
@pytest.mark.parametrize("action", ["result", "error", "approve", "reject"])
def test_a_thread_of_nobodys_is_of_all_in_its_scope(agent, settings, me, action, is_signed_in):
    """Guests, or a team that shares its threads."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.GuestPolicy"}
    user = me if is_signed_in else None
    one, other = (Api(user, headers={"X-Guest": name}) for name in ("one", "other"))
    call = waiting_call(None, scope="one", **KINDS[action])
    assert problem(act(other, call, action)) == (403, "permission_denied")
    assert act(one, call, action).json()["status"] == STATUS_AFTER[action]


def test_a_result_ends_the_wait(api, agent, me):
    """It is shown as it was given, and the next step is due."""
    call = waiting_call(me, **KINDS["result"])
    answered = act(api, call, "result").json()
    assert (answered["status"], answered["result"], answered["error"]) == ("completed", {"found": [1, None]}, None)
    assert status_of(call.thread) == "streaming"


@pytest.mark.parametrize("result", [None, False, 0, "", [], {"deep": [[[]]]}])
def test_any_json_value_is_a_result(api, agent, me, result):
    """Null too."""
    answered = act(api, waiting_call(me, **KINDS["result"]), "result", {"result": result})
    assert (answered.status_code, answered.json()["result"]) == (200, result)


@pytest.mark.parametrize("action", ANSWERS)
def test_the_same_answer_again_changes_nothing(api, agent, me, action):
    """Twice is once, and a different answer is a conflict."""
    call = waiting_call(me, **KINDS[action])
    first, again = act(api, call, action), act(api, call, action)
    assert (again.status_code, again.json()) == (200, first.json())
    other = {"result": 2} if action == "result" else {"error": "Another."}
    assert problem(act(api, call, action, other)) == (409, "tool_call_not_pending")


def test_an_approval_says_who_when_and_why(api, agent, me):
    """And the call is due."""
    call = waiting_call(me, **KINDS["approve"])
    asked = api.get(f"threads/{call.thread_id}/tool-calls/").json()["results"][0]["approval"]
    assert (asked["decided_at"], asked["decided_by"], asked["reason"]) == (None, None, "")
    decided = act(api, call, "approve").json()["approval"]
    assert (decided["decided_by"], decided["reason"]) == (me.get_username(), "Fine.")
    assert decided["decided_at"] >= decided["requested_at"] == asked["requested_at"]


def test_changed_arguments_stand_beside_those_of_the_model(api, agent, me):
    """Those that do not fit are refused, and change nothing."""
    call = waiting_call(me, **KINDS["approve"])
    assert problem(act(api, call, "approve", {"arguments": {"size": 1}})) == (400, "invalid_parts")
    answered = act(api, call, "approve", {"arguments": {"word": "y"}}).json()
    assert (answered["arguments"], answered["approved_arguments"]) == ({"word": "x"}, {"word": "y"})


def test_an_approval_of_arguments_that_do_not_fit_any_more_names_them(api, agent, me, changed_plain):
    """The call has failed, and the model is told the same; with arguments that fit it would run."""
    call = waiting_call(me, **KINDS["approve"])
    changed_plain()
    refused = act(api, call, "approve")
    assert problem(refused) == (409, "tool_changed")
    assert "city: Field required" in refused.json()["detail"]
    [shown] = api.get(f"threads/{call.thread_id}/tool-calls/").json()["results"]
    assert (shown["status"], shown["approval"]["decided_by"]) == ("failed", me.get_username())
    assert "city: Field required" in shown["error"]
    other = waiting_call(me, **KINDS["approve"])
    assert act(api, other, "approve", {"arguments": {"city": "Oslo"}}).json()["status"] == "pending"


def test_a_refusal_tells_the_model_why(api, agent, me):
    """And the run goes on."""
    call = waiting_call(me, **KINDS["reject"])
    answered = act(api, call, "reject").json()
    assert "Too dear." in answered["error"]
    assert status_of(call.thread) == "streaming"


@pytest.mark.parametrize("action", APPROVALS)
def test_a_decision_that_comes_too_late_is_told_so(api, agent, me, action):
    """The call is expired then, and stays so."""
    call = waiting_call(me, **KINDS[action])
    ToolCall.objects.filter(pk=call.pk).update(expires_at=Now() - timedelta(seconds=1))
    for _ in range(2):
        assert problem(act(api, call, action)) == (409, "approval_expired")
        call.refresh_from_db()
        assert (call.status, call.approval_decided_by) == ("expired", None)
    assert status_of(call.thread) == "streaming"


@pytest.mark.parametrize("first", APPROVALS)
@pytest.mark.parametrize("second", APPROVALS)
def test_the_first_decision_counts(api, agent, me, first, second):
    """The second is told that nothing waits."""
    call = waiting_call(me, **KINDS["approve"])
    assert act(api, call, first).status_code == 200
    assert problem(act(api, call, second)) == (409, "tool_call_not_pending")


@pytest.mark.parametrize("action", ["result", "error", "approve", "reject"])
def test_a_call_whose_run_was_stopped_waits_for_nobody(api, agent, me, action):
    """Whoever answers late is told so."""
    call = waiting_call(me, **KINDS[action])
    stop_thread(call.thread)
    assert problem(act(api, call, action)) == (409, "tool_call_not_pending")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pair", [("approve", "reject"), ("approve", "approve"), ("result", "error")])
def test_of_two_at_once_one_wins(agent, me, pair):
    """The other one is a conflict, and the call is as the winner said."""
    call = waiting_call(me, **KINDS[pair[0]])
    callers, barrier = [Api(me), Api(me)], Barrier(2)

    def race(api: Api, action: str) -> tuple[int, str]:
        try:
            barrier.wait(10)
            return act(api, call, action).status_code, action
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(race, callers, pair))
    assert [status for status, _ in answers] == [200, 409]
    call.refresh_from_db()
    assert call.status == STATUS_AFTER[answers[0][1]]


@pytest.mark.parametrize("seconds", [90, 0.5, None])
def test_staff_gives_an_open_call_another_time(agent, seconds):
    """From now on, or none at all."""
    boss = person("boss", is_staff=True)
    call = waiting_call(boss, **KINDS["timeout"])
    answered = act(Api(boss), call, "timeout", {"seconds": seconds})
    assert answered.status_code == 200
    assert (answered.json()["expires_at"] is None) == (seconds is None)


@pytest.mark.parametrize("kind", ["approve", "timeout"])
@pytest.mark.parametrize("who", ["other", "durable_agents.add_thread"])
def test_staff_who_may_not_answer_a_call_may_not_change_its_time(agent, kind, who):
    """A short time would refuse the call; superusers have every permission."""
    boss = person("boss", is_staff=True)
    call = waiting_call(boss, **facts_left_to(kind, who))
    assert problem(act(Api(boss), call, "timeout", {"seconds": 1})) == (403, "permission_denied")
    call.refresh_from_db()
    assert call.timeout != timedelta(seconds=1)
    if "." in who:
        boss.is_superuser = True
        boss.save()
        assert act(Api(boss), call, "timeout", {"seconds": 1}).status_code == 200


def test_the_time_of_an_approval_is_for_those_whom_the_policy_lets_approve(agent, settings):
    """Adding results is not enough."""
    settings.DURABLE_AGENTS = {"POLICY": "tests.api.policies.ResultsOnly"}
    boss = person("boss", is_staff=True)
    call = waiting_call(boss, **KINDS["approve"])
    assert problem(act(Api(boss), call, "timeout", {"seconds": 1})) == (403, "permission_denied")


@pytest.mark.parametrize("seconds", [0, -1, 1e30, "60", True, [], {}])
def test_a_time_that_is_none_is_refused(agent, seconds):
    """With the code of every body that is wrong."""
    boss = person("boss", is_staff=True)
    call = waiting_call(boss, **KINDS["timeout"])
    assert problem(act(Api(boss), call, "timeout", {"seconds": seconds})) == (400, "invalid")


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("result", {}),
        ("error", {}),
        ("error", {"error": ""}),
        ("error", {"error": None}),
        ("approve", {"arguments": [1]}),
        ("approve", {"reason": {}}),
        ("reject", {"reason": None}),
        ("timeout", {}),
    ],
)
def test_a_body_that_is_wrong_is_refused(agent, action, body):
    """And the call waits on."""
    boss = person("boss", is_staff=True)
    call = waiting_call(boss, **KINDS[action])
    assert problem(act(Api(boss), call, action, body)) == (400, "invalid")
    call.refresh_from_db()
    assert call.finished_at is None


def test_a_result_is_bounded_in_size_and_depth(api, agent, me):
    """As every body is."""
    call = waiting_call(me, **KINDS["result"])
    assert problem(act(api, call, "result", {"result": "x" * 300_000})) == (413, "too_large")
    deep = '{"result": ' + "[" * 40 + "]" * 40 + "}"
    path = f"threads/{call.thread_id}/tool-calls/{call.tool_call_id}/result/"
    assert problem(api.post(path, deep)) == (400, "too_deep")
    assert problem(api.post(path, '{"result": NaN}')) == (400, "parse_error")


def test_what_no_database_stores_is_replaced(api, agent, me):
    """In a result, an error and a reason."""
    for action, body in (
        ("result", {"result": ["a\0b"]}),
        ("error", {"error": "a\0b"}),
        ("reject", {"reason": "a\0b"}),
    ):
        answered = act(api, waiting_call(me, **KINDS[action]), action, body)
        assert answered.status_code == 200
        assert "\\u0000" not in answered.content.decode()


def test_the_list_can_be_narrowed_and_has_pages(api, agent, me):
    """The oldest first."""
    call = waiting_call(me, **KINDS["approve"])
    path = f"threads/{call.thread_id}/tool-calls/"
    assert [row["tool_call_id"] for row in all_pages(api, path, limit=1)] == [call.tool_call_id]
    assert len(api.get(path, status="approval_requested").json()["results"]) == 1
    assert api.get(path, status="completed").json()["results"] == []
    assert problem(api.get(path, status="nonsense")) == (400, "invalid")


def test_answering_costs_the_same_however_many_calls_there_are(api, agent, me):
    """One call is read, not the thread's."""
    call = waiting_call(me, **KINDS["approve"])
    few = queries(api, f"threads/{call.thread_id}/tool-calls/{call.tool_call_id}/approve/", method="POST")
    ToolCall.objects.filter(pk=call.pk).update(status="approval_requested", approval_decided_at=None)
    for number in range(20):
        copy = ToolCall.objects.get(pk=call.pk)
        copy.pk, copy.tool_call_id, copy._state.adding = None, f"call_{number}", True
        copy.save(force_insert=True)
    many = queries(api, f"threads/{call.thread_id}/tool-calls/{call.tool_call_id}/approve/", method="POST")
    assert many == few <= 20


def test_the_list_of_agents_says_of_each_tool_who_runs_and_who_approves_it(api, declare):
    """A function that decides counts as approval that may be needed."""

    @tool(kind="client")
    def pick(label: str) -> str:
        """Pick."""

    @tool(kind="deferred", needs_approval=lambda ctx, args: False)
    def ask(question: str) -> None:
        """Ask."""

    @tool(needs_approval=True)
    def pay(amount: int) -> str:
        """Pay."""

    declare("shop", tools=[pick, ask, pay], public=True)
    [shop] = [row for row in api.get("agents/").json()["results"] if row["name"] == "shop"]
    said = [(row["name"], row["kind"], row["needs_approval"]) for row in shop["tools"]]
    assert said == [("pick", "client", False), ("ask", "deferred", True), ("pay", "sync", True)]


def test_changed_arguments_fit_a_tool_that_configure_has_chosen(declare, me, api):
    """A person's mistake is refused before the tool runs, wherever the agent has the tool from."""

    @tool(needs_approval=True)
    def refund(amount: int) -> str:
        """Pay back."""
        return str(amount)

    declare(public=True, tools=[], configure=lambda thread: {"tools": [refund]})
    call = waiting_call(me, needs_approval=True, tool_name="refund", arguments={"amount": 5})
    assert problem(act(api, call, "approve", {"arguments": {"amount": "much"}})) == (400, "invalid_parts")
    assert act(api, call, "approve", {"arguments": {"amount": 4}}).status_code == 200
