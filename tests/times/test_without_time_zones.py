"""With USE_TZ = False, or a database in local time, every moment is the right one, at every edge."""

import os
import re
import signal
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import httpx
import pytest
from django.conf import settings
from django.test import Client

from durable_agents.models import Delta, Stream, Thread, ToolCall
from tests.crash.talk import was_told, words
from tests.servers.model import Call, Reply, Status
from tests.times.instants import is_now, moments_in
from tests.websocket.real import connected
from tests.workers import until

MOMENT = re.compile(r'"\w+(?:_at|At)":\s*"([^"]+)"')
CALLS = (Call(name="pay", arguments={"amount": 5}), Call(name="ask_the_warehouse", arguments={}))
ROWS = """
rows = [row for model in (Thread, Message, Stream, ToolCall) for row in model.objects.all()]
times = [getattr(row, field.name) for row in rows for field in row._meta.fields if field.name.endswith("_at")]
times = [moment for moment in times if moment is not None]
assert times
"""


def asks(request):
    """Make calls that wait for people, and then say something."""
    return Reply(text="Thank you.") if was_told(request) else Reply(calls=CALLS)


def test_every_moment_over_rest_is_an_instant_with_its_offset(api, cluster, model_server):
    model_server.answer_with(asks)
    waiting = api.thread("clerk", status="awaiting_tool_results")
    pay = next(call for call in api.get(f"threads/{waiting}/tool-calls/")["results"] if call["tool_name"] == "pay")
    api.post(f"threads/{waiting}/tool-calls/{pay['tool_call_id']}/approve/")
    paths = ["", "messages/", "messages/?streams=1", "tool-calls/", "usage/", "export/"]
    for path in paths:
        found = list(moments_in(api.get(f"threads/{waiting}/{path}")))
        assert found, path
        assert all(map(is_now, found)), (path, found)
    assert all(map(is_now, moments_in(api.get("threads/"))))


def test_every_moment_over_a_websocket_and_as_events_is_an_instant(api, server, cluster):
    thread = api.thread()
    with api.client.stream("GET", f"threads/{thread}/events/") as events:
        text = next(line for line in events.iter_lines() if MOMENT.search(line))
    assert all(map(is_now, MOMENT.findall(text)))
    with connected(server, origin=None) as socket:
        socket.tell(type="hello", version=1, ticket=api.post("ws-ticket/")["ticket"])
        socket.tell(id="r1", type="subscribe", thread=thread)
        snapshot = socket.hear_until(lambda frame: frame["type"] == "snapshot")[-1]
    assert all(map(is_now, moments_in(snapshot)))
    assert list(moments_in(snapshot))


def test_rows_are_read_in_the_projects_own_kind_of_time(api, cluster, script):
    api.thread()
    told = script(ROWS + "now = timezone.now()\nprint({abs((now - moment).total_seconds()) < 60 for moment in times})")
    assert told == "{True}"
    kinds = "print({timezone.is_aware(moment) == timezone.is_aware(timezone.now()) for moment in times})"
    assert script(ROWS + kinds) == "{True}"


def test_rows_are_instants_for_a_process_with_time_zones(api, cluster):
    """The same database by another process, whose settings are the tests'."""
    api.thread()
    [thread] = Thread.objects.all()
    assert abs((datetime.now(UTC) - thread.created_at).total_seconds()) < 60
    assert abs((datetime.now(UTC) - Stream.objects.get().finished_at).total_seconds()) < 60


def test_rows_are_found_by_the_projects_own_times(api, cluster, script):
    api.thread()
    code = "ago = timezone.now() - timedelta(minutes=5)\nsoon = timezone.now() + timedelta(minutes=5)\n"
    asked = "Thread.objects.filter(created_at__{}={}).count()"
    code += f"print({asked.format('gt', 'ago')}, {asked.format('lt', 'ago')}, {asked.format('lt', 'soon')})"
    assert script(code) == "1 0 1"
    code = "t = Thread.objects.get(); t.save(); again = Thread.objects.get()\n"
    assert script(code + "print(again.created_at == t.created_at, again.updated_at == t.updated_at)") == "True True"


def test_python_values_have_the_projects_own_times(api, cluster, script):
    thread = api.thread()
    code = f"m = list_messages('{thread}')[0]\nprint(abs((timezone.now() - m.created_at).total_seconds()) < 60)"
    assert script(code) == "True"


def test_a_retry_says_when_and_comes_then(api, cluster, model_server):
    model_server.answer_with(Status(status=429, headers={"Retry-After": "4"}), Reply(text="Hello."))
    thread = api.post("threads/", {"agent": "talker", "prompt": "Hello."})["id"]
    retry = until(lambda: api.get(f"threads/{thread}/")["retry"])
    wait = datetime.fromisoformat(retry["next_retry_at"]) - datetime.now(UTC)
    assert timedelta(0) < wait < timedelta(seconds=5)
    until(lambda: api.get(f"threads/{thread}/")["status"] == "completed", seconds=15)
    first, second = (exchange.received_at for exchange in model_server.journal)
    assert 4 <= second - first < 8


def test_a_call_expires_in_its_time_and_not_before(api, cluster, model_server):
    model_server.answer_with(lambda request: Reply(text="Well.") if was_told(request) else Reply(calls=CALLS[1:]))
    thread = api.thread("clerk", status="awaiting_tool_results")
    call = until(lambda: ToolCall.objects.filter(needs_worker=False).first())
    answer = api.post(f"threads/{thread}/tool-calls/{call.tool_call_id}/timeout/", {"seconds": 4})
    assert (
        timedelta(seconds=2) < datetime.fromisoformat(answer["expires_at"]) - datetime.now(UTC) < timedelta(seconds=5)
    )
    time.sleep(2)
    assert ToolCall.objects.get(pk=call.pk).status == "pending"
    until(lambda: ToolCall.objects.get(pk=call.pk).status == "expired", seconds=10)


def test_an_approval_is_open_until_it_expires(api, cluster, model_server):
    model_server.answer_with(lambda request: Reply(text="Well.") if was_told(request) else Reply(calls=CALLS[:1]))
    thread = api.thread("clerk", status="awaiting_tool_results")
    call = ToolCall.objects.get()
    path = f"threads/{thread}/tool-calls/{call.tool_call_id}"
    api.post(f"{path}/timeout/", {"seconds": 60})
    assert is_now(api.post(f"{path}/approve/")["approval"]["decided_at"])
    until(lambda: api.get(f"threads/{thread}/")["status"] == "completed")


def test_an_approval_that_has_expired_is_refused(api, cluster, model_server, script):
    model_server.answer_with(Reply(calls=CALLS[:1]))
    thread = api.thread("clerk", status="awaiting_tool_results")
    call = ToolCall.objects.get()
    ToolCall.objects.update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    answer = api.client.post(f"threads/{thread}/tool-calls/{call.tool_call_id}/approve/", json={})
    assert answer.status_code == 409


def test_leases_and_recovery_keep_their_seconds(api, cluster, model_server):
    story = words(100)
    model_server.answer_with(Reply(text=story, delay_seconds=0.05), Reply(text=story))
    thread = api.post("threads/", {"agent": "talker", "prompt": "Tell."})["id"]
    until(lambda: Delta.objects.count() >= 5)
    held = Stream.objects.held().get()
    assert timedelta(seconds=15) < held.lease_expires_at - datetime.now(UTC) <= timedelta(seconds=31)
    os.kill(int(held.lease_owner.split(":")[-2]), signal.SIGKILL)
    until(lambda: api.get(f"threads/{thread}/")["status"] == "completed", seconds=15)
    assert Stream.objects.filter(finish_reason="crashed").count() == 1


def test_tickets_are_good_for_a_minute(api, script):
    code = "from django.contrib.auth import get_user_model\nfrom durable_agents import lifecycle\n"
    code += "user = get_user_model().objects.get()\nticket = lifecycle.issue_ticket(user)\n"
    assert script(code + "print(lifecycle.redeem_ticket(ticket).user_id == str(user.pk))") == "True"
    late = "Ticket.objects.update(expires_at=timezone.now() - timedelta(seconds=1))\n"
    assert script(code + late + "print(lifecycle.redeem_ticket(ticket))") == "None"
    soon = "Ticket.objects.update(expires_at=timezone.now() + timedelta(seconds=5))\n"
    assert script(code + soon + "print(lifecycle.redeem_ticket(ticket).user_id == str(user.pk))") == "True"


def test_pages_by_time_have_every_thread_once(api, script):
    script("from django.contrib.auth import get_user_model\nuser = get_user_model().objects.get()\n" + MAKE_SEVEN)
    seen, page = [], api.get("threads/?limit=2")
    while True:
        seen += [thread["title"] for thread in page["results"]]
        if not page["next"]:
            break
        page = api.get(page["next"])
    assert seen == [f"thread {number}" for number in reversed(range(7))]
    assert [thread["title"] for thread in api.get(page["previous"])["results"]] == seen[4:6]


MAKE_SEVEN = """import time
for number in range(7):
    create_thread('talker', owner=user, title=f'thread {number}')
    time.sleep(0.01)
"""


def test_the_admin_shows_the_projects_own_time_and_filters_by_it(api, server, cluster, env):
    thread = api.thread()
    browser = Client()
    browser.force_login(api.user)
    session = {settings.SESSION_COOKIE_NAME: browser.cookies[settings.SESSION_COOKIE_NAME].value}
    admin = f"{server.url}/admin/durable_agents/thread/"
    shown = httpx.get(f"{admin}{thread}/change/", cookies=session, trust_env=False).text
    found = re.search(r"changed (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", shown)
    now = datetime.now(ZoneInfo(env["TEST_TIME_ZONE"])).replace(tzinfo=None)
    assert abs(now - datetime.fromisoformat(found[1])) < timedelta(seconds=60)
    for after, count in ((now - timedelta(minutes=5), 1), (now + timedelta(minutes=5), 0)):
        query = {"created_at__gte": after.isoformat(" ")}
        rows = httpx.get(admin, params=query, cookies=session, trust_env=False, follow_redirects=True).text
        assert rows.count(f"/thread/{thread}/change/") == count


def test_the_doctor_finds_no_fault_with_the_clocks(script):
    code = "from durable_agents.management.diagnosis import examine\nprint(*[found.text for found in examine()])"
    assert "clocks" not in script(code)
    assert "PostgreSQL" in script(code) or "SQLite" in script(code)


def test_a_run_in_a_test_skips_its_waits(script):
    """The test kit has a clock of its own; no worker knows this agent."""
    code = "from durable_agents.testing import ScriptedModel, fails, run_until_idle\n"
    code += "with ScriptedModel(fails('network'), 'Hello.'):\n    Agent('alone', model='openai/test')\n"
    code += "    create_thread('alone', prompt='Hi')\n    print(run_until_idle().skipped_seconds)"
    assert 0 < float(script(code)) < 60


@pytest.mark.django_db
@pytest.mark.parametrize("hour", [0, 1])
def test_the_hour_that_an_autumn_night_has_twice_is_told_apart(settings, hour):
    """Los Angeles, 2026-11-01: 01:30 comes twice, and a wait over it is as long as any."""
    from durable_agents import create_thread
    from durable_agents.utc_times import as_expected, instant, later, to_iso

    settings.USE_TZ, settings.TIME_ZONE = False, "America/Los_Angeles"
    moment = datetime(2026, 11, 1, 8 + hour, 30, tzinfo=UTC)
    shown = as_expected(moment)
    assert (shown.hour, shown.minute, shown.tzinfo) == (1, 30, None)
    assert instant(shown) == moment
    assert to_iso(later(shown, timedelta(hours=1))) == (moment + timedelta(hours=1)).isoformat()
    thread = create_thread("talker")
    Thread.objects.filter(pk=thread.pk).update(created_at=shown)
    assert instant(Thread.objects.get().created_at) == moment
