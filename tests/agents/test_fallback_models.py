"""A list of models: each model has its attempts, and an error that would come again leads to the next model."""

import re

import pytest

from durable_agents import Fail, Retry, RetryIn, create_thread
from durable_agents.agents import registry
from durable_agents.exceptions import ErrorKind
from durable_agents.models import Stream
from durable_agents.testing import ScriptedModel, calls, fails, run_until_idle
from tests.architecture.sources import ROOT

PAGE = (ROOT / "docs" / "howto" / "fallback-models.md").read_text(encoding="utf-8")
RETRIED, AT_ONCE, ENDING = (
    re.findall(r"`(\w+)`", row.split("|")[1]) for row in re.findall(r"^\| `.*\|$", PAGE, re.MULTILINE)
)
TWO = ["openai/a", "openai/b"]

pytestmark = pytest.mark.django_db


def ran(*answers):
    """Run a thread of the shop to its rest; return it, the models that were called, and the seconds of the delays."""
    with ScriptedModel(*answers) as model:
        thread = create_thread("shop", prompt="Hello.")
        done = run_until_idle()
    thread.refresh_from_db()
    return thread, "".join(request.model[-1] for request in model.requests), done.skipped_seconds


def test_the_page_has_every_kind_in_its_table():
    """The first row has the kinds that are retried."""
    assert sorted([*RETRIED, *AT_ONCE, *ENDING]) == sorted(kind.value for kind in ErrorKind)
    assert sorted(RETRIED) == sorted(kind.value for kind in ErrorKind if kind.retryable)


@pytest.mark.parametrize("kind", RETRIED)
def test_an_error_that_may_pass_stays_with_the_model_for_its_attempts(shop, kind):
    """The second attempt succeeds, so the second model is not called."""
    shop(model=TWO, retry=Retry(max_attempts=3))
    thread, models, _ = ran(fails(kind), "Hi.")
    assert (thread.status, models) == ("completed", "aa")


def test_a_model_without_attempts_left_is_followed_by_the_next_without_a_delay(shop):
    """The next model starts with the first delay, and has as many attempts."""
    shop(model=TWO, retry=Retry(max_attempts=3, initial_delay_seconds=10, max_delay_seconds=90, jitter=False))
    thread, models, delays = ran(*[fails("rate_limited")] * 5, "Hi.")
    assert (thread.status, models) == ("completed", "aaabbb")
    assert delays == pytest.approx((10 + 20) * 2, abs=1)


@pytest.mark.parametrize("kind", AT_ONCE)
def test_an_error_that_would_come_again_leads_to_the_next_model(shop, kind):
    """Immediately; the number of the attempt is the first of the next model."""
    shop(model=TWO, retry=Retry(max_attempts=3))
    thread, models, delays = ran(fails(kind), fails("network"), "Hi.")
    assert (thread.status, models) == ("completed", "abb")
    assert delays < 2
    assert [*Stream.objects.filter(thread=thread).values_list("attempt", "model", "error_code")] == [
        (1, "openai/a", kind),
        (4, "openai/b", "network"),
        (5, "openai/b", ""),
    ]


def test_the_last_error_is_the_runs_if_no_model_answers(shop):
    """After all attempts of the last model, or at its first error that would come again."""
    shop(model=TWO, retry=Retry(max_attempts=2))
    thread, models, _ = ran(*[fails("network")] * 3, fails("rate_limited"))
    assert (thread.status, thread.error_code, models) == ("failed", "rate_limited", "aabb")
    thread, models, _ = ran(fails("network"), fails("auth"), fails("content_policy"))
    assert (thread.status, thread.error_code, models) == ("failed", "content_policy", "aab")


@pytest.mark.parametrize("kind", ["rate_limited", "auth"])
def test_without_retries_every_error_leads_to_the_next_model(shop, kind):
    """Each model has one attempt."""
    shop(model=[*TWO, "openai/c"], retry=False)
    assert ran(fails(kind), fails(kind), "Hi.")[1] == "abc"


def test_the_next_step_begins_with_the_first_model(shop):
    """It may be available again."""
    shop(model=TWO, retry=Retry(max_attempts=2))
    assert ran(fails("auth"), calls("add", a=1, b=1), "Two.")[1] == "aba"


def test_a_clients_text_says_which_attempt_of_all_models_it_is(shop):
    """Attempts are numbered through the list."""
    told = []
    shop(model=TWO, retry=Retry(max_attempts=3), on_retry=lambda **facts: told.append(facts))
    ran(fails("network"), fails("auth"), "Hi.")
    assert [(facts["attempt"], facts["max_attempts"]) for facts in told] == [(1, 6), (2, 6)]
    assert told[1]["delay_seconds"] == 0


@pytest.mark.parametrize(
    ("decision", "kind", "status", "models"),
    [(RetryIn(5), "auth", "completed", "aab"), (Fail("closed"), "network", "failed", "a")],
)
def test_classify_takes_precedence_over_the_kind(shop, decision, kind, status, models):
    """`RetryIn` uses up the attempts of a model, `Fail` ends the run."""
    shop(model=TWO, retry=Retry(max_attempts=2, classify=lambda error: decision))
    thread, called, _ = ran(fails(kind), fails(kind), "Hi.")
    assert (thread.status, called) == (status, models)


def test_the_example_of_the_page_runs():
    """As it is written."""
    [source] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    space = {"__name__": "shop.agents"}
    exec(compile(source, "fallback-models.md", "exec"), space)
    try:
        agent = space["support"]
        assert (agent.max_attempts, agent.model_for(3), agent.model_for(4)) == (6, *agent.models)
    finally:
        registry.remove("support")
