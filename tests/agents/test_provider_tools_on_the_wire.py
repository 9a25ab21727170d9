"""A tool that the model's vendor runs, through litellm and over HTTP, as Anthropic streams it."""

import pytest

from durable_agents import create_thread
from durable_agents.models import Stream, ToolCall
from durable_agents.testing import run_until_idle
from tests.llm.wire import Block, WireServer, anthropic, call_block, text_block
from tests.testing.shop import add

SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
SEARCHED = Block(
    start={"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
    deltas=({"type": "input_json_delta", "partial_json": '{"query": "rain in Oslo"}'},),
)
FOUND = Block(
    start={
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": [
            {"type": "web_search_result", "title": "Weather", "url": "https://example.com", "encrypted_content": "x"}
        ],
    }
)


@pytest.fixture
def server():
    with WireServer() as running:
        yield running


@pytest.mark.django_db
@pytest.mark.filterwarnings("ignore")
def test_anthropic_searches_itself_beside_a_call_of_ours(shop, server):
    """It gets the definition as it is; its search makes no row, our call beside it runs, and the run goes on."""
    settings = {"api_base": server.url.removesuffix("/v1"), "api_key": "key-123"}
    shop(model="anthropic/claude-sonnet-4-5", model_settings=settings, tools=[add], provider_tools=[SEARCH])
    ours = call_block('{"a": 1, "b": 2}', call_id="toolu_1", name="add")
    first = anthropic(text_block("Let me look."), SEARCHED, FOUND, ours, reason="tool_use")
    server.answer_with(first, anthropic(text_block("It rains.")))
    thread = create_thread("shop", prompt="Does it rain?")
    run_until_idle(real_models=True)
    thread.refresh_from_db()
    assert thread.status == "completed"
    sent, told = server.requests
    assert sent["tools"][-1] == SEARCH
    call = ToolCall.objects.get(thread=thread)
    assert (call.tool_name, call.arguments, call.result) == ("add", {"a": 1, "b": 2}, 3)
    assert "srvtoolu_1" not in str(told["messages"])
    assert [stream.text for stream in Stream.objects.filter(thread=thread).order_by("number")] == [
        "Let me look.",
        "It rains.",
    ]
