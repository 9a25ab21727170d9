"""The session of an atomic tool is cut: the tool and its outcome still happen once, and no attempt is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection

from durable_agents import create_thread
from durable_agents.models import Thread, ToolCall
from tests.crash.talk import said, was_told
from tests.project.models import Booking
from tests.servers.model import Call, ModelUnderTest, Reply
from tests.servers.postgres import DATABASE, PostgresUnderTest
from tests.workers import Cluster, at_rest, text_in, until

Start = Callable[..., Cluster]
IN_COMMIT = "state = 'active' AND query ILIKE 'COMMIT%'"
SLOW_COMMIT = """
CREATE FUNCTION wait_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF nextval('waits') = 1 THEN PERFORM pg_sleep(5); END IF;
  RETURN NULL;
END $$;
CREATE SEQUENCE waits;
CREATE CONSTRAINT TRIGGER wait_once AFTER INSERT ON project_booking DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION wait_once();
"""
COMMIT_WITHOUT_ANSWER = """
CREATE FUNCTION wait_for_standby() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  RETURN NULL;
END $$;
CREATE TRIGGER wait_for_standby AFTER INSERT ON project_booking FOR EACH ROW EXECUTE FUNCTION wait_for_standby();
"""


@pytest.fixture
def booked(start_on_own: Start, model_server: ModelUnderTest, tmp_path: Path) -> Callable[..., Thread]:
    """Have a slow booking begun in a worker."""

    def begin(seconds: float) -> Thread:
        arguments = {"name": "table", "path": str(tmp_path / "runs"), "seconds": seconds}
        model_server.answer_with(
            lambda request: (
                Reply(text=f"Booked {was_told(request)[0]}.", delay_seconds=0)
                if was_told(request)
                else Reply(calls=(Call(name="book_slowly", arguments=arguments),), delay_seconds=0)
            )
        )
        start_on_own(2)
        thread = create_thread("toolbox", prompt="Book.")
        until(lambda: text_in(tmp_path / "runs"), seconds=30)
        return thread

    return begin


def assert_booked_once(thread: Thread, path: Path, *, runs: int) -> None:
    [thread] = at_rest(thread, seconds=60)
    call = ToolCall.objects.get()
    assert said(thread)[-1] == ("assistant", ["Booked 1."]), call.error_detail
    assert (call.status, call.attempt, call.result) == ("completed", 1, "1")
    assert Booking.objects.count() == 1
    assert text_in(path) == "table\n" * runs


def cut(server: PostgresUnderTest, where: str) -> None:
    """End the session of the tool, once it stands where it shall be cut."""
    until(lambda: server.cut_sessions(where), seconds=20, what=lambda: str(server.execute("TABLE pg_stat_activity")))


@pytest.mark.slow
def test_session_cut_in_the_tool_runs_it_again(own_postgres: PostgresUnderTest, booked, tmp_path):
    thread = booked(seconds=4)
    cut(own_postgres, "state = 'idle in transaction' AND query ILIKE 'INSERT INTO \"project_booking%'")
    assert_booked_once(thread, tmp_path / "runs", runs=2)


@pytest.mark.slow
def test_server_restarted_in_the_tool_runs_it_again(own_postgres: PostgresUnderTest, booked, tmp_path):
    thread = booked(seconds=6)
    own_postgres.restart("immediate")
    connection.close()
    assert_booked_once(thread, tmp_path / "runs", runs=2)


@pytest.mark.slow
def test_session_cut_at_commit_runs_it_again(own_postgres: PostgresUnderTest, booked, tmp_path):
    own_postgres.execute(SLOW_COMMIT, name=DATABASE)
    thread = booked(seconds=0)
    cut(own_postgres, IN_COMMIT)
    assert_booked_once(thread, tmp_path / "runs", runs=2)


@pytest.mark.slow
def test_commit_whose_answer_is_lost_is_found_and_not_run_again(own_postgres: PostgresUnderTest, booked, tmp_path):
    """It waits for a standby that there is not: committed here, and not answered."""
    own_postgres.execute(f"ALTER DATABASE {DATABASE} SET synchronous_commit = local")
    own_postgres.execute(COMMIT_WITHOUT_ANSWER, name=DATABASE)
    own_postgres.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    own_postgres.execute("SELECT pg_reload_conf()")
    thread = booked(seconds=0)
    cut(own_postgres, IN_COMMIT)
    assert_booked_once(thread, tmp_path / "runs", runs=1)
    assert "already committed locally" in own_postgres.log
