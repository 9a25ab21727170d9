"""`manage.py agents_doctor` finds what keeps agents from running, says what to do, and serves as a probe."""

import json
import socket
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from importlib.metadata import PackageNotFoundError
from io import StringIO
from types import SimpleNamespace

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone
from django_q.brokers import Broker
from django_q.conf import Conf
from django_q.models import OrmQ, Schedule

from durable_agents import create_thread
from durable_agents.agents import registry
from durable_agents.llm.model_catalog import estimated_cost
from durable_agents.management import diagnosis
from durable_agents.models import DeliveryReport, Pool, Stream, StreamState, Thread, seconds_from_now
from durable_agents.task_queue import schedule_sweep
from durable_agents.task_queue.inspection import late_queues
from tests.architecture.sources import ROOT
from tests.testing.shop import opened

pytestmark = pytest.mark.django_db
NOWHERE = "redis://127.0.0.1:9/0"


@pytest.fixture(autouse=True)
def _healthy(agent, bells, monkeypatch):
    """Begin with a project in which all is well: a sweep that runs, and keys."""
    for model in (DeliveryReport, Schedule):
        model.objects.all().delete()
    schedule_sweep()
    Schedule.objects.update(task="an earlier one", next_run=timezone.now() + timedelta(seconds=30))
    for key in diagnosis.KEYS.values():
        monkeypatch.setenv(key, "key")
    monkeypatch.setattr(diagnosis, "estimated_cost", lambda model, **tokens: Decimal(1))
    for declared in registry.all():
        Thread.objects.create(agent=declared.name)


def examine(*arguments):
    """Run the command; return its exit code and its findings by area."""
    out = StringIO()
    try:
        call_command("agents_doctor", "--json", *arguments, stdout=out)
        code = 0
    except SystemExit as ended:
        code = ended.code
    told = json.loads(out.getvalue())
    by_area = {}
    for finding in told["findings"]:
        by_area.setdefault(finding["area"], []).append(finding)
    return SimpleNamespace(code=code, status=told["status"], by_area=by_area)


def problem(area, *arguments):
    """Return the one problem of an area and the exit code; every problem has a hint."""
    told = examine(*arguments)
    [found] = [finding for finding in told.by_area[area] if finding["level"] != "ok"]
    assert found["hint"]
    return SimpleNamespace(code=told.code, **found)


# ---------------------------------------------------------------------------------------------------------- in health


def test_a_healthy_project_has_no_problem():
    """Each area says something."""
    told = examine("--fail-level", "warning")
    assert (told.code, told.status) == (0, "ok"), told.by_area
    areas = ["package", "settings", "database", "broker", "sweep", "channel layer", "delivery"]
    areas += ["workers", "agents"]
    areas += ["prompt caches", "models"]
    assert list(told.by_area) == areas


def test_people_read_lines_with_what_to_do():
    """A problem is followed by its hint."""
    Schedule.objects.all().delete()
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("agents_doctor", stdout=out, no_color=True)
    assert ended.value.code == 2
    lines = out.getvalue().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("error    sweep"))
    assert "-> Run: manage.py migrate" in lines[at + 1]


def test_warnings_fail_the_probe_only_where_that_is_asked_for():
    """A probe should not restart what works."""
    Schedule.objects.update(next_run=timezone.now() - timedelta(hours=1), task="")
    assert examine().code == 0
    assert examine("--fail-level", "warning").code == 1


def test_an_area_that_breaks_does_not_hide_the_others(monkeypatch):
    """It is a finding of its own."""

    def broken():
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(diagnosis, "sweep_facts", broken)
    told = examine()
    assert told.code == 2
    assert told.by_area["sweep"][0]["text"] == "The check failed: RuntimeError: unforeseen"
    assert told.by_area["models"][0]["level"] == "ok"


def test_as_a_process_it_imports_no_litellm(child_env, tmp_path):
    """Fit for a probe; a database without tables is an error, not a traceback."""
    code = (
        "import sys; from django.core.management import execute_from_command_line as run\n"
        "try: run(['manage.py', 'agents_doctor', '--json'])\n"
        "finally: print('litellm' in sys.modules)"
    )
    env = child_env | {"TEST_DATABASE_URL": f"sqlite:///{tmp_path / 'empty.sqlite3'}"}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    told, imported = ended.stdout.splitlines()
    assert imported == "False"
    [missing] = [finding for finding in json.loads(told)["findings"] if finding["level"] == "error"]
    assert "Migrations are not applied" in missing["text"]
    assert missing["hint"] == "Run: manage.py migrate"


# ------------------------------------------------------------------------------------------------------- the findings


def test_the_other_project_of_nearly_the_same_name_is_found(monkeypatch):
    """It imports under our name."""
    monkeypatch.setattr(diagnosis, "version", lambda name: "1.2.3")
    found = problem("package")
    assert (found.code, found.level) == (2, "error")
    assert "pip uninstall durable-agents" in found.hint


def test_sources_that_are_not_installed_are_no_problem(monkeypatch):
    """A checkout on the path."""

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(diagnosis, "version", missing)
    assert examine().by_area["package"][0]["level"] == "ok"


def test_what_the_system_checks_find_is_told(settings):
    """With their ids."""
    settings.DURABLE_AGENTS = {"POLICI": "x"}
    found = problem("settings")
    assert (found.code, found.level, found.hint) == (2, "error", "Did you mean 'POLICY'?")
    assert "durable_agents.E001" in found.text


def test_a_check_that_was_silenced_is_silent(settings):
    """As everywhere in Django; one that was not is told all the same."""
    settings.DURABLE_AGENTS = {"POLICI": "x"}
    settings.SILENCED_SYSTEM_CHECKS = ["durable_agents.W003"]
    assert "durable_agents.E001" in problem("settings").text
    settings.SILENCED_SYSTEM_CHECKS = ["durable_agents.E001"]
    assert examine().by_area["settings"][0]["level"] == "ok"


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite alone has these options")
def test_sqlite_options_that_writers_suffer_from_are_told(monkeypatch):
    """With the lines to paste."""
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})
    found = problem("settings")
    assert found.level == "warning"
    assert "'transaction_mode': 'IMMEDIATE'" in found.hint


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite alone has a journal mode")
def test_a_journal_that_is_not_wal_is_told(tmp_path, child_env):
    """By the file, not by the settings."""
    code = (
        "import django; django.setup()\n"
        "from django.db import connection as c; c.ensure_connection()\n"
        "c.cursor().execute('PRAGMA journal_mode=DELETE')\n"
        "from durable_agents.management.diagnosis import check_sqlite\n"
        "print(*check_sqlite(c))"
    )
    env = child_env | {"TEST_DATABASE_URL": f"sqlite:///{tmp_path / 'slow.sqlite3'}"}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert "'delete'" in ended.stdout
    assert "journal_mode=WAL" in ended.stdout


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has this host's clock")
def test_clocks_that_are_apart_are_told(monkeypatch):
    """Leases use the database's."""
    ahead = SimpleNamespace(now=lambda: timezone.now() + timedelta(minutes=5))
    monkeypatch.setattr(diagnosis, "timezone", ahead)
    assert "300 s apart" in problem("database").text


@pytest.mark.skipif(connection.vendor != "postgresql", reason="is about PostgreSQL's version")
def test_an_old_postgresql_is_told(monkeypatch):
    """An error, since indexes would be missing."""
    monkeypatch.setattr(diagnosis, "OLDEST_POSTGRESQL", 99)
    assert problem("database").level == "error"


def test_pools_that_differ_from_the_settings_are_told():
    """Claims obey the rows."""
    Pool.objects.filter(name="tools").update(limit=1)
    assert "tools" in problem("database").text


class SilentBroker(Broker):
    """A broker that nobody can reach."""

    def ping(self):
        raise ConnectionError("connection refused")


def test_a_broker_that_does_not_answer_is_an_error(monkeypatch):
    """The other areas are looked at all the same."""
    monkeypatch.setattr(Conf, "BROKER_CLASS", f"{__name__}.SilentBroker")
    found = problem("broker")
    assert (found.code, found.level) == (2, "error")
    assert "connection refused" in found.text


def test_a_redis_that_is_not_there_is_an_error(monkeypatch):
    """Of its own, without a stack of retries."""
    monkeypatch.setattr(Conf, "ORM", None)
    monkeypatch.setattr(Conf, "REDIS", NOWHERE)
    connect, tried = socket.socket.connect, []

    def noted(self, address):
        tried.append(address)
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noted)
    found = problem("broker")
    assert found.level == "error"
    assert tried.count(("127.0.0.1", 9)) == 2, "once for the queue, and once for who works on it"


@pytest.mark.parametrize(
    ("queue", "said"),
    [({"timeout": 60, "retry": 60}, "retry 60 and timeout 60"), ({"timeout": None, "retry": 90}, "no timeout")],
)
def test_queue_limits_that_double_the_projects_own_tasks_are_told(settings, queue, said):
    """django-q2 delivers again after ``retry``."""
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, **queue}
    found = problem("settings")
    assert said in found.text
    assert found.level == "warning"


def test_a_missing_sweep_is_an_error():
    """Nothing else finds a row whose notification was lost."""
    Schedule.objects.all().delete()
    found = problem("sweep")
    assert (found.code, found.level, found.hint.split(" (")[0]) == (2, "error", "Run: manage.py migrate")


def test_a_sweep_that_nobody_runs_is_told():
    """How long it is late."""
    Schedule.objects.update(next_run=timezone.now() - timedelta(seconds=600))
    found = problem("sweep")
    assert (found.level, found.hint) == ("warning", "Run: manage.py qcluster")
    assert "600 s ago" in found.text


def test_a_sweep_that_is_switched_off_or_elsewhere_is_told():
    """Somebody changed the schedule."""
    Schedule.objects.update(repeats=0)
    assert problem("sweep").level == "error"
    Schedule.objects.update(repeats=-1, cluster="elsewhere")
    assert "is not scheduled on" in problem("sweep").text


def test_a_channel_layer_that_is_not_there_is_an_error(settings):
    """A message is sent through it and waited for."""
    layer = {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [NOWHERE]}}
    settings.CHANNEL_LAYERS = {"default": layer}
    found = [item for item in examine().by_area["channel layer"] if item["level"] == "error"]
    assert "does not deliver messages" in found[0]["text"]


# ------------------------------------------------------------------------------------------------------------ delivery


def report(pid: int, *, minutes: float = 10, age: float = 0, **counts: int) -> None:
    """Let a process have counted something since so many minutes ago."""
    seen_at = seconds_from_now(-60 * age)
    since = seconds_from_now(-60 * minutes)
    DeliveryReport.objects.create(holder=f"boot:1:{pid}:5", since=since, seen_at=seen_at, counts=counts)


@pytest.mark.parametrize("kind", ["hint_not_sent", "hint_not_received", "stale_thread", "slow_close"])
def test_problems_of_delivery_are_warnings_that_name_the_processes(kind):
    report(11, **{kind: 3})
    report(11, **{kind: 1})
    report(12, minutes=42, **{kind: 2})
    report(13, snapshot=1)
    found = problem("delivery", "--fail-level", "warning")
    assert (found.level, found.code) == ("warning", 1)
    assert found.text.startswith("6 ")
    assert "within 42 min (process 11: 4, process 12: 2)" in found.text


def test_snapshots_and_closed_websockets_are_no_problem():
    report(11, snapshot=3, closed_1000=2)
    report(12, snapshot=1, closed_1000=1, closed_4401=4)
    [found] = examine("--fail-level", "warning").by_area["delivery"]
    assert found["level"] == "ok"
    assert found["text"] == (
        "2 processes within 10 min: 4 snapshots sent; websockets closed: 3 with 1000, 4 with 4401."
    )


def test_problems_of_delivery_are_forgotten_after_an_hour():
    report(11, minutes=130, age=61, hint_not_sent=3)
    [found] = examine().by_area["delivery"]
    assert (found["level"], "no process has counted" in found["text"]) == ("ok", True)


def test_no_sign_of_a_worker_is_told():
    """As long as nothing waits, a warning."""
    Schedule.objects.update(task="")
    found = problem("workers")
    assert (found.level, found.hint) == ("warning", "Run: manage.py qcluster")


def test_a_cluster_of_its_own_is_started_by_its_name(settings):
    """The hint is a line to paste."""
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, "ALT_CLUSTERS": {"slow": {"workers": 1}}}
    settings.DURABLE_AGENTS = {"POOLS": {"tools": {"cluster": "slow", "limit": 50}}}
    assert problem("workers").hint == "Run: Q_CLUSTER_NAME=slow manage.py qcluster"


def test_another_cluster_is_no_sign_of_this_one(settings, monkeypatch):
    """django-q2 does not say whose the clusters are that it sees."""
    Schedule.objects.update(task="")
    monkeypatch.setattr(diagnosis, "clusters_seen", lambda: 1)
    assert examine().by_area["workers"][0]["level"] == "ok"
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, "ALT_CLUSTERS": {"slow": {"workers": 1}}}
    assert problem("workers").level == "warning"


def test_a_pool_whose_cluster_does_not_exist_is_told(settings):
    """By the system check."""
    settings.DURABLE_AGENTS = {"POOLS": {"tools": {"cluster": "nowhere", "limit": 50}}}
    assert "durable_agents.E003" in problem("settings").text


def test_a_live_lease_is_a_sign_of_a_worker(worker):
    """Whatever django-q2 says."""
    Schedule.objects.update(task="")
    create_thread("tested", prompt="Hi")
    worker.claim_step()
    assert "hold 1 rows" in examine().by_area["workers"][0]["text"]


def late(seconds=120):
    """Make a row due that long ago."""
    create_thread("tested", prompt="Hi")
    Stream.objects.filter(state=StreamState.PENDING).update(available_at=Now() - timedelta(seconds=seconds))


def test_rows_that_nobody_takes_are_an_error():
    """Where they have been due for more than a minute."""
    late(30)
    assert examine().status == "ok"
    late(120)
    found = problem("workers")
    assert (found.code, found.level) == (2, "error")
    assert "no worker claims them" in found.text


def test_a_full_pool_is_told_apart(worker, settings):
    """More workers alone would not help."""
    settings.DURABLE_AGENTS = {"POOLS": {"agents": {"limit": 1}}}
    Pool.objects.filter(name="agents").update(limit=1)
    create_thread("tested", prompt="Hi")
    worker.claim_step()
    late()
    found = problem("workers")
    assert found.level == "warning"
    assert "is full: 1 rows are held, 1 have waited" in found.text


def test_rows_for_code_that_is_not_here_are_told():
    """By the names that they want."""
    late()
    Stream.objects.update(agent="yesterdays")
    found = problem("workers")
    assert found.level == "warning"
    assert "yesterdays" in found.text


def test_a_model_without_a_key_is_told(monkeypatch):
    """By the usual variable; an agent with a key or a server of its own is left alone."""
    monkeypatch.delenv("OPENAI_API_KEY")
    found = problem("models")
    assert (found.code, found.level) == (0, "warning")
    assert "Agent 'tested', model 'openai/x': the environment has no OPENAI_API_KEY" in found.text
    assert "'talker'" not in found.text


def test_litellm_is_asked_when_it_may_be(monkeypatch):
    """It knows every provider and their keys, and asks nobody."""
    monkeypatch.delenv("OPENAI_API_KEY")
    with opened(name="odd", model="no-such-provider/x"):
        texts = [finding["text"] for finding in examine("--models").by_area["models"]]
    assert any("'no-such-provider/x': litellm knows no provider for it" in text for text in texts)
    assert any("'openai/x': the environment has no OPENAI_API_KEY" in text for text in texts)


def test_models_behind_another_door_are_left_alone(settings):
    """The project's own."""
    settings.DURABLE_AGENTS = {"MODEL_DOOR": "myapp.door.Door"}
    assert "myapp.door.Door" in examine().by_area["models"][0]["text"]


def test_the_door_of_each_agent_is_told_with_the_reason(settings):
    settings.DURABLE_AGENTS = {"MODEL_DOOR": "auto"}
    with opened(name="odd", model="bedrock/x"):
        texts = [finding["text"] for finding in examine().by_area["models"]]
    assert any(text.startswith("These agents call their models directly") and "tested" in text for text in texts)
    reason = "provider 'bedrock' is not in the direct door's table."
    assert f"litellm calls model 'bedrock/x' of agent 'odd': {reason}" in texts


def test_an_agent_that_the_direct_door_cannot_serve_is_an_error(settings):
    settings.DURABLE_AGENTS = {"MODEL_DOOR": "direct"}
    with opened(name="odd", model="bedrock/x"):
        levels = {finding["text"]: finding["level"] for finding in examine().by_area["models"]}
    reason = "provider 'bedrock' is not in the direct door's table."
    assert levels[f"Model 'bedrock/x' of agent 'odd' cannot be called without litellm: {reason}"] == "error"


def test_a_project_without_agents_is_told(monkeypatch):
    """There is nothing to run."""
    monkeypatch.setattr(diagnosis.registry, "all", list)
    found = problem("models")
    assert found.text == "No agent is declared."
    assert "startproject does not install the project's own folder" in found.hint


def test_rows_due_at_once_that_nobody_takes_are_an_error():
    """They have no due time, and wait all the same."""
    create_thread("tested", prompt="Hi")
    Stream.objects.update(pending_since=Now() - timedelta(seconds=30))
    assert examine().status == "ok"
    Stream.objects.update(pending_since=Now() - timedelta(seconds=120))
    assert "no worker claims them" in problem("workers").text


def test_a_broker_on_another_host_without_a_password_is_warned_of(settings):
    settings.Q_CLUSTER = {"name": "tests", "timeout": 300, "retry": 360, "redis": "redis://redis.internal:6379/0"}

    found = problem("settings")

    assert (found.level, found.code) == ("warning", 0)
    assert found.text == "Q_CLUSTER[\"redis\"] names a Redis on 'redis.internal' without a password."
    assert "rediss://" in found.hint


def test_models_without_a_price_are_named(monkeypatch):
    """By name, once each; a model in the price list is not."""
    monkeypatch.setattr(diagnosis, "estimated_cost", lambda model, **tokens: None if "x" in model else Decimal(1))
    with opened(name="odd", model=["openai/x-2", "openai/gpt-5-mini"]), opened(name="even", model="openai/x-2"):
        Thread.objects.create(agent="odd")
        Thread.objects.create(agent="even")
        found = problem("models")
    assert (found.code, found.level) == (0, "warning")
    assert found.text.endswith("so their cost is not known: openai/x, openai/x-2.")


def test_a_model_of_an_own_server_needs_no_price(monkeypatch):
    """It is named without a warning."""
    monkeypatch.setattr(diagnosis, "estimated_cost", lambda model, **tokens: None if "own" in model else Decimal(1))
    with opened(name="odd", model="openai/own", model_settings={"api_base": "http://127.0.0.1:9/v1"}):
        findings = examine().by_area["models"]
    assert {finding["level"] for finding in findings} == {"ok"}
    assert any("openai/own" in finding["text"] for finding in findings)


def test_the_price_list_has_well_known_models_and_no_others():
    """Whatever the number of tokens."""
    costs = [estimated_cost(model, input_tokens=1, output_tokens=1) for model in ("openai/gpt-4o", "openai/nobodys")]
    assert [cost is None for cost in costs] == [False, True]


def test_agents_that_nobody_can_reach_are_named():
    """An agent that is public, or has a thread under one of its names, is not."""
    Thread.objects.create(agent="earlier")
    with opened(name="hidden"), opened(name="shown", public=True), opened(name="renamed", aliases=["earlier"]):
        found = problem("agents")
    assert (found.level, found.text.rpartition(": ")[2]) == ("warning", "hidden.")


def test_a_queue_whose_schedules_nobody_runs_is_named():
    """After some minutes; a schedule that is switched off does not count."""
    due = {"func": "math.floor", "cluster": "reports"}
    row = Schedule.objects.create(**due, next_run=timezone.now() - timedelta(seconds=100))
    Schedule.objects.create(func="math.floor", cluster="off", repeats=0, next_run=timezone.now() - timedelta(hours=1))
    assert examine().status == "ok"
    Schedule.objects.filter(pk=row.pk).update(next_run=timezone.now() - timedelta(seconds=200))
    found = problem("broker")
    assert (found.level, "'reports'" in found.text) == ("warning", True)
    assert found.hint.startswith("Run: Q_CLUSTER_NAME=reports manage.py qcluster")


def test_a_queue_whose_tasks_nobody_takes_is_named(monkeypatch):
    """Unless another of its tasks is running."""
    monkeypatch.setattr(Conf, "ORM", "default")
    OrmQ.objects.create(key="reports", payload="", lock=timezone.now() - timedelta(seconds=200))
    OrmQ.objects.create(key="new", payload="", lock=timezone.now())
    assert late_queues() == ["reports"]
    OrmQ.objects.create(key="reports", payload="", lock=timezone.now() + timedelta(seconds=200))
    assert late_queues() == []


def called(model, *, cached, tokens=10_000, calls=10, **changes):
    """Store finished calls of a model, `cached` tokens of each from the prompt cache."""
    thread = Thread.objects.create(agent="tested")
    usage = {"model": model, "input_tokens": tokens, "cached_input_tokens": cached}
    ended = {"state": StreamState.FINISHED, "finished_at": Now() - timedelta(hours=1)}
    facts = {"thread": thread, "pool": "agents", "rev": 1, **usage, **ended, **changes}
    Stream.objects.bulk_create([Stream(**{"number": number} | facts) for number in range(2, calls + 2)])


def test_models_that_miss_their_prompt_cache_are_named():
    """A model without cached tokens counts if the price list has a price for them."""
    called("own/often", cached=5_000)
    called("own/rarely", cached=1_999)
    called("openai/gpt-5-mini", cached=0)
    found = problem("prompt caches")
    assert (found.code, found.level) == (0, "warning")
    assert found.text.endswith("came from the prompt cache: openai/gpt-5-mini (0 %), own/rarely (19 %).")


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "own/without-a-cache"},
        {"calls": 9},
        {"tokens": 7_999, "calls": 100},
        {"finished_at": Now() - timedelta(hours=25)},
        {"usage_estimated": True},
        {"state": StreamState.ABORTED},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_calls_that_say_nothing_about_a_prompt_cache_do_not_count(changes):
    """Models that are not known to have one, few or short calls, and calls of earlier days."""
    called(**{"model": "openai/gpt-5-mini", "cached": 0} | changes)
    [found] = examine().by_area["prompt caches"]
    assert found["text"] == "No model with a prompt cache has had enough long calls during the last day."


def test_the_hit_rates_of_prompt_caches_are_shown():
    called("openai/gpt-5-mini", cached=9_000)
    called("openai/gpt-5-mini", cached=0, number=1, calls=1)
    [found] = examine().by_area["prompt caches"]
    assert (found["level"], found["text"].rpartition(": ")[2]) == ("ok", "openai/gpt-5-mini 90 %.")
