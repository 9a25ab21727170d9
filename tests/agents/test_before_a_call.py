"""Before every model call the agent's functions say what it is made with; one that fails ends the run, visibly."""

import logging

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError

from durable_agents import Retry, RetryIn, create_thread, resume_thread, send_message, tool
from durable_agents.models import Stream, ToolCall
from durable_agents.testing import ScriptedModel, SimulatedCrash, calls, crash, does, fails, run_until_idle, says
from tests.project.models import Booking
from tests.testing.shop import add, book, weather

pytestmark = pytest.mark.django_db


def ran(*answers, thread=None, **options):
    """Run a thread of the shop to its rest; return it, and what the model was asked."""
    with ScriptedModel(*answers, **options) as model:
        thread = thread or create_thread("shop", prompt="Hello.")
        run_until_idle()
    thread.refresh_from_db()
    return thread, model.requests


def names(request):
    """Return the names of the tools that the model was told of."""
    return [item["function"]["name"] for item in request.tools]


def count(thread):
    """Look into the database, as a sync function may."""
    return f"{Booking.objects.count()} bookings"


async def count_async(thread):
    """Look into the database, as a coroutine function may."""
    return f"{await Booking.objects.acount()} bookings"


@pytest.mark.parametrize("function", [count, count_async])
def test_instructions_may_ask_the_database_before_every_call(shop, function):
    """So they are as they are now, not as they were when the run began."""
    shop(instructions=function)
    _, requests = ran(calls("book", name="Ada"), "Done.")
    assert [request.messages[0]["content"] for request in requests] == ["0 bookings", "1 bookings"]


class TestConfigure:
    """What `configure` overrides."""

    @pytest.mark.parametrize("is_async", [False, True])
    def test_overrides_hold_for_the_next_call(self, shop, is_async):
        """All that can be overridden, from the database, sync or async."""
        Booking.objects.create(name="openai/other")

        def configure(thread):
            return overrides(Booking.objects.get().name)

        async def configure_async(thread):
            return overrides((await Booking.objects.aget()).name)

        def overrides(model):
            return {
                "model": model,
                "instructions": lambda thread: f"You serve {thread.agent}.",
                "tools": [add],
                "model_settings": {"temperature": 0.9},
            }

        shop(configure=configure_async if is_async else configure, model_settings={"top_p": 1})
        _, [request] = ran("Hi.")
        assert (request.model, request.settings) == ("openai/other", {"temperature": 0.9})
        assert (request.messages[0]["content"], names(request)) == ("You serve shop.", ["add"])

    @pytest.mark.parametrize("is_async", [False, True])
    def test_the_threads_owner_is_at_hand(self, shop, is_async):
        """A coroutine function could not fetch it."""
        owner = User.objects.create(username="ada")

        def configure(thread):
            return {"instructions": thread.owner.username}

        async def configure_async(thread):
            return configure(thread)

        shop(configure=configure_async if is_async else configure)
        _, [request] = ran("Hi.", thread=create_thread("shop", prompt="Hello.", owner=owner))
        assert request.messages[0]["content"] == "ada"

    def test_nothing_overridden_is_as_declared(self, shop):
        """None, or no overrides."""
        shop(configure=lambda thread: None, tools=[add])
        _, [request] = ran("Hi.")
        assert (request.model, names(request)) == ("openai/gpt-x", ["add"])

    def test_a_list_of_models_is_tried_in_turn(self, shop):
        """As a declared one is."""
        shop(configure=lambda thread: {"model": ["openai/a", "openai/b"]}, retry=Retry(max_attempts=1))
        thread, requests = ran(fails("invalid_request"), "Hi.")
        assert ([request.model for request in requests], thread.status) == (["openai/a", "openai/b"], "completed")

    def test_a_call_of_a_tool_that_was_left_out_is_told_to_the_model(self, shop):
        """And is not run."""
        shop(configure=lambda thread: {"tools": [add]})
        thread, requests = ran(calls("book", name="Ada"), "I see.")
        assert requests[1].messages[-1]["content"] == "Error: There is no tool 'book'. Tools: add."
        assert (thread.status, Booking.objects.count()) == ("completed", 0)

    def test_a_declared_tool_of_no_agent_can_be_given(self, shop):
        """Any worker finds it by its name."""

        @tool(needs_approval=lambda ctx, args: False)
        def special(name: str) -> str:
            """Book something special."""
            return f"special {name}"

        shop(tools=[add], configure=lambda thread: {"tools": [add, special]})
        _, requests = ran(calls("special", name="Ada"), "Done.")
        assert names(requests[0]) == ["add", "special"]
        assert requests[1].messages[-1]["content"] == "special Ada"

    def test_a_tool_that_is_made_just_now_is_refused(self, shop):
        """The worker that runs the call may be another one."""

        def configure(thread):
            made = tool(name="made")(lambda: 1)
            return {"tools": [add, made]}

        shop(configure=configure)
        thread, requests = ran()
        assert (thread.error_code, requests) == ("invalid_request", [])
        assert "made. Add them to the agent's tools" in Stream.objects.get(thread=thread).error_detail

    def test_fewer_steps_end_the_run_earlier(self, shop):
        """And a resume gives as many again."""
        shop(configure=lambda thread: {"max_steps": 2})
        thread, requests = ran(calls("add", a=1, b=1), calls("add", a=1, b=1))
        assert (thread.status, thread.error_code, len(requests)) == ("failed", "max_steps", 2)
        thread, requests = ran("Two.", thread=resume_thread(thread))
        assert (thread.status, len(requests)) == ("completed", 1)

    def test_more_steps_than_declared_are_made(self, shop):
        """The declared number is the default, not the limit."""
        shop(max_steps=1, configure=lambda thread: {"max_steps": 3})
        thread, requests = ran(calls("add", a=1, b=1), calls("add", a=1, b=1), "Two.")
        assert (thread.status, len(requests)) == ("completed", 3)

    def test_the_declared_number_of_steps_holds_where_none_is_given(self, shop):
        """Having a `configure` does not lift it."""
        shop(max_steps=1, configure=lambda thread: {})
        thread, _ = ran(calls("add", a=1, b=1))
        assert (thread.status, thread.error_code) == ("failed", "max_steps")

    @pytest.mark.parametrize(
        ("overrides", "hint"),
        [
            ({"temperature": 1}, "overrides temperature: only model, instructions"),
            ("openai/x", "a dict of overrides"),
            ({"model": 5}, "model string"),
            ({"model": []}, "model string"),
            ({"instructions": 5}, "a text or a callable"),
            ({"tools": [len]}, "@tool"),
            ({"tools": [add, add]}, "two tools of the same name"),
            ({"model_settings": [1]}, "a dict"),
            ({"max_steps": "many"}, "a whole number"),
        ],
    )
    def test_what_is_no_override_ends_the_run_with_a_sentence(self, shop, overrides, hint):
        """For the admin; users are told that the request was wrong. No model is asked, none of a list either."""
        shop(model=["openai/a", "openai/b"], configure=lambda thread: overrides)
        thread, requests = ran()
        assert (thread.status, thread.error_code, requests) == ("failed", "invalid_request", [])
        assert hint in Stream.objects.get(thread=thread).error_detail
        assert hint not in thread.error_message


class TestTransformMessages:
    """What `transform_messages` does to the history."""

    @pytest.mark.parametrize("is_async", [False, True])
    def test_the_model_gets_what_it_returns(self, shop, is_async):
        """With the thread and the database at hand, sync or async."""
        Booking.objects.create(name="Ada")

        def transform(messages, thread):
            return [*messages, {"role": "user", "content": f"{thread.agent}: {Booking.objects.count()}"}]

        async def transform_async(messages, thread):
            return [*messages, {"role": "user", "content": f"{thread.agent}: {await Booking.objects.acount()}"}]

        shop(transform_messages=transform_async if is_async else transform)
        _, [request] = ran("Hi.")
        assert [message["content"] for message in request.messages] == ["You are a shop.", "Hello.", "shop: 1"]

    def test_changing_them_in_place_leaves_the_thread_as_it_is(self, shop):
        """They are a copy; so the second call sees the history again."""

        def transform(messages, thread):
            for message in messages:
                message["content"] = "changed"
            return messages

        shop(transform_messages=transform)
        thread, _ = ran("One.")
        assert thread.messages.get(role="user").text == "Hello."

    def test_a_call_whose_result_was_dropped_gets_a_note(self, shop):
        """No provider takes a call without a result."""
        shop(transform_messages=lambda messages, thread: [m for m in messages if m["role"] != "tool"])
        _, requests = ran([calls("add", a=1, b=1), calls("add", a=2, b=2)], "Done.")
        *_, asked, first, second = requests[1].messages
        assert [call["id"] for call in asked["tool_calls"]] == [first["tool_call_id"], second["tool_call_id"]]
        assert {first["content"], second["content"]} == {"[The result is not shown any more.]"}

    def test_a_result_whose_call_was_dropped_goes_with_it(self, shop):
        """Cutting a history anywhere is safe."""
        shop(transform_messages=lambda messages, thread: messages[-1:])
        _, requests = ran(calls("add", a=1, b=1), "Done.", thread=create_thread("shop", prompt="Add."))
        assert requests[0].messages == [{"role": "user", "content": "Add."}]

    def test_results_out_of_order_are_put_after_their_calls(self, shop):
        """In the order of the calls."""
        shop(transform_messages=lambda messages, thread: [*messages[:2], *reversed(messages[2:])])
        _, requests = ran([calls("add", a=1, b=1), calls("add", a=2, b=2)], "Done.")
        assert [message["role"] for message in requests[1].messages] == ["system", "user", "assistant", "tool", "tool"]
        assert [message["content"] for message in requests[1].messages[3:]] == ["2", "4"]

    def test_the_models_own_words_are_not_left_last(self, shop):
        """Most models refuse to go on with themselves."""
        shop(transform_messages=lambda messages, thread: [m for m in messages if m.get("content") != "And now?"])
        thread, _ = ran("Hi.")
        send_message(thread, "And now?")
        _, [request] = ran("Bye.", thread=thread)
        assert [message["role"] for message in request.messages] == ["system", "user", "assistant", "user"]

    def test_a_half_answer_of_before_a_crash_is_not_shown_to_it(self, shop):
        """It stays the last word, which the model goes on with."""
        seen = []
        shop(transform_messages=lambda messages, thread: seen.append(messages[-1]["role"]) or messages)
        with ScriptedModel([says("Half an"), does(crash)], " answer.", continues=True) as model:
            create_thread("shop", prompt="Hello.")
            with pytest.raises(SimulatedCrash):
                run_until_idle()
            run_until_idle()
        assert seen == ["user", "user"]
        assert model.requests[-1].messages[-1] == {"role": "assistant", "content": "Half an"}

    @pytest.mark.parametrize("returned", [None, [], ["Hello."], [{"content": "Hello."}], "Hello."])
    def test_what_is_no_history_ends_the_run_with_a_sentence(self, shop, returned):
        """Visibly, and without asking the model."""
        shop(transform_messages=lambda messages, thread: returned)
        thread, requests = ran()
        assert (thread.status, thread.error_code, requests) == ("failed", "invalid_request", [])
        assert "transform_messages" in Stream.objects.get(thread=thread).error_detail


def broken(*args):
    """Fail with what nobody should see."""
    raise KeyError("a secret detail")


async def broken_async(*args):
    """Do the same."""
    broken()


class TestFunctionsThatRaise:
    """Functions that raise."""

    @pytest.mark.parametrize("function", [broken, broken_async])
    @pytest.mark.parametrize("name", ["configure", "instructions", "transform_messages"])
    def test_one_that_raises_ends_the_run_at_once(self, shop, caplog, name, function):
        """Logged once with its traceback, masked for users, there for the admin; not tried for ever."""
        shop(model=["openai/a", "openai/b"], **{name: function})
        with caplog.at_level(logging.ERROR, logger="durable_agents"):
            thread, requests = ran()
        assert (thread.status, thread.error_code, requests) == ("failed", "unknown", [])
        assert "secret" not in thread.error_message
        assert "a secret detail" in Stream.objects.get(thread=thread).error_detail
        [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert (record.action, record.function, record.exc_info[0]) == ("agent_function", name, KeyError)

    @pytest.mark.parametrize("error", [OperationalError, ConnectionError, TimeoutError])
    def test_what_may_pass_is_tried_again(self, shop, error):
        """As often as the agent tries a model, and no more."""
        asked = []

        def configure(thread):
            asked.append(thread)
            if len(asked) < 3:
                raise error("just now")

        shop(configure=configure, retry=Retry(max_attempts=3))
        thread, requests = ran("Hi.")
        assert (thread.status, len(asked), len(requests)) == ("completed", 3, 1)

    def test_what_does_not_pass_ends_after_the_attempts(self, shop):
        """It is not tried for ever."""
        asked = []

        def configure(thread):
            asked.append(thread)
            raise ConnectionError

        shop(configure=configure, retry=Retry(max_attempts=3))
        thread, _ = ran()
        assert (thread.status, len(asked)) == ("failed", 3)

    def test_classify_may_say_otherwise(self, shop):
        """It gets the error with its cause."""
        causes = []

        def classify(error):
            causes.append(type(error.__cause__))
            return RetryIn(1) if len(causes) == 1 else None

        shop(instructions=broken, retry=Retry(classify=classify))
        thread, _ = ran()
        assert (thread.status, causes) == ("failed", [KeyError, KeyError])


SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}


class TestProviderTools:
    """Tools that the model's vendor runs."""

    def test_they_go_out_as_they_are_after_ours(self, shop):
        """Also with `configure`."""
        shop(tools=[add, book], provider_tools=[SEARCH], configure=lambda thread: {"tools": [book]})
        _, [request] = ran("Hi.")
        assert (request.tools[0]["function"]["name"], request.tools[1:]) == ("book", [SEARCH])

    @pytest.mark.parametrize(
        "definition",
        [SEARCH, {"type": "web_search"}, {"web_search": {}}, {"type": "function", "function": {"name": "web_search"}}],
    )
    def test_a_call_of_one_makes_no_row_and_no_next_step(self, shop, definition):
        """Its vendor has answered it already."""
        shop(tools=[add], provider_tools=[definition])
        thread, requests = ran([says("Let me look."), calls("web_search", query="x"), says("It rains.")])
        assert (thread.status, len(requests), ToolCall.objects.count()) == ("completed", 1, 0)
        step = Stream.objects.get(thread=thread)
        assert [part["type"] for part in step.parts] == ["step-start", "text", "text"]
        assert (step.text, step.finish_reason) == ("Let me look.\n\nIt rains.", "stop")

    def test_ours_beside_them_run(self, shop):
        """Each call gets its own arguments."""
        shop(tools=[add, weather], provider_tools=[SEARCH])
        thread, requests = ran([calls("web_search", query="x"), calls("add", a=1, b=2)], "Done.")
        call = ToolCall.objects.get(thread=thread)
        assert (call.tool_name, call.result, len(requests)) == ("add", 3, 2)

    def test_a_tool_of_ours_keeps_its_name(self, shop):
        """What we declare is ours to run."""
        shop(tools=[add], provider_tools=[{"type": "add"}])
        thread, _ = ran(calls("add", a=1, b=2), "Done.")
        assert ToolCall.objects.get(thread=thread).result == 3
