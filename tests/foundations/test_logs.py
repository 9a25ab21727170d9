"""Log records carry facts under stable keys, and nothing else."""

import logging
import re
from logging.config import DictConfigurator
from typing import Any
from uuid import uuid4

import pytest

from durable_agents.logs import log, log_error
from tests.architecture.sources import ROOT


def test_facts_are_attributes_of_the_record(caplog):
    """The message is constant."""
    thread, stream = uuid4(), uuid4()
    log(logging.WARNING, "claim", action="claim", thread=thread, stream=stream, attempt=2, fence=3)
    [record] = caplog.records
    assert (record.message, record.action, record.name) == ("claim", "claim", "durable_agents")
    assert (record.thread, record.stream, record.attempt, record.fence) == (str(thread), str(stream), 2, 3)


@pytest.mark.parametrize(("style", "same"), [("%(thread)s", True), ("%(thread)d", False)])
def test_a_conversation_stands_where_others_expect_a_number(caplog, style, same):
    """Formatters of the project that print the number of the operating system's thread still can."""
    thread = uuid4()
    log(logging.WARNING, "claim", action="claim", thread=thread)
    text = logging.Formatter(style).format(caplog.records[0])
    assert (text == str(thread)) is same
    assert same or text.isdigit()


def test_the_format_of_the_quickstart_shows_thread_and_kind(caplog):
    """Records of changes have no kind."""
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^(LOGGING = .*?^}\n)", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(block, "quickstart.md", "exec"), names)
    settings = names["LOGGING"]["formatters"]["agents"]
    formatter = DictConfigurator(names["LOGGING"]).configure_custom(dict(settings))
    thread = uuid4()
    log(logging.WARNING, "a run failed", action="run_failed", thread=thread, kind="auth")
    log(logging.WARNING, "claim", action="claim", thread=thread)
    failed, claimed = (formatter.format(record) for record in caplog.records)
    assert failed.endswith(f" WARNING a run failed thread={thread} kind=auth")
    assert claimed.endswith(f" WARNING claim thread={thread} kind=-")


def test_a_record_says_where_it_was_written(caplog):
    """Not where the function that writes it lives."""
    log(logging.WARNING, "claim", action="claim")
    try:
        raise ValueError("boom")
    except ValueError:
        log_error("a row failed", action="run")
    assert [record.filename for record in caplog.records] == ["test_logs.py"] * 2


def test_a_level_that_is_off_writes_nothing(caplog):
    """As any logger."""
    with caplog.at_level(logging.ERROR, "durable_agents"):
        log(logging.INFO, "claim", action="claim")
    assert caplog.records == []


def test_an_error_is_written_with_its_traceback(caplog):
    """Once, where it is handled."""
    try:
        raise ValueError("boom")
    except ValueError:
        log_error("a row failed", action="run", thread=uuid4())
    [record] = caplog.records
    assert (record.levelno, record.exc_info[0], record.action) == (logging.ERROR, ValueError, "run")
