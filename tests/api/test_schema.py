"""The OpenAPI schema is there for everybody, covers every operation, and is true of what is really answered."""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from django.urls import reverse

from durable_agents import create_thread, stop_thread
from durable_agents.api.urls import streams
from tests.api.calls import BODIES, KINDS, Api, act, person, waiting_call
from tests.api.operations import CALL, OPERATIONS, call
from tests.api.operations import operations as operations_of
from tests.lifecycle.stage import calling
from tests.processes import ROOT

pytestmark = pytest.mark.django_db


@pytest.fixture
def schema() -> dict[str, Any]:
    """Return the schema as an anonymous caller gets it."""
    return Api().get("schema/").json()


def strict(value: Any) -> Any:
    """Return an OpenAPI 3.0 schema as a JSON schema that allows no field beyond those it names."""
    if isinstance(value, list):
        return [strict(item) for item in value]
    if not isinstance(value, dict):
        return value
    made = {name: strict(item) for name, item in value.items() if name != "nullable"}
    if "properties" in made:
        made.setdefault("additionalProperties", False)
    return {"anyOf": [made, {"type": "null"}]} if value.get("nullable") is True else made


def path_of(route: str) -> str:
    """Return the path by which the schema names a route."""
    return "/agents/" + re.sub(r"<str:(\w+)>", r"{\1}", route)


def check(schema: dict[str, Any], method: str, route: str, response: Any) -> None:
    """Hold an answer against what the schema says of it."""
    said = schema["paths"][path_of(route)][method.lower()]["responses"][str(response.status_code)]
    if "content" not in said:
        assert response.content == b""
        return
    body = said["content"]["application/json"]["schema"]
    jsonschema.validate(response.json(), strict({**body, "components": schema["components"]}))


def body_of(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """Return what a POST takes."""
    body = schema["paths"][f"/agents/{path}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return schema["components"]["schemas"][body["$ref"].rpartition("/")[2]]


def test_it_names_every_operation_and_nothing_else(schema):
    """At the place where the project has mounted them."""
    said = {(method.upper(), path) for path, item in schema["paths"].items() for method in item}
    assert said == {(method, path_of(route)) for method, route, _ in [*OPERATIONS, *operations_of(streams)]}
    ids = [operation["operationId"] for item in schema["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


OTHERS = [(method, route) for method, route, _ in OPERATIONS if not route.startswith(CALL)]


@pytest.mark.parametrize(("method", "route"), OTHERS)
def test_it_is_true_of_what_is_answered(api, agent, me, worker, schema, method, route):
    """For a thread at rest and for one in the middle of things."""
    resting = create_thread(agent, owner=me, prompt="Hi", client_id="one", metadata={"a": 1})
    worker.answer("Let me see.", calling())
    worker.settle({"found": [1, None]})
    worker.answer("Found.")
    busy = create_thread(agent, owner=me, prompt="Hi")
    worker.answer("Let me see.", calling())
    for thread in (resting, busy):
        check(schema, method, route, call(api, method, route, thread.pk))


@pytest.mark.parametrize("action", BODIES)
def test_it_is_true_of_tool_calls(agent, schema, action):
    """In their list and after each thing that is done to one; parameters of the path are named."""
    boss = person("boss", is_staff=True)
    made = waiting_call(boss, **KINDS[action])
    check(schema, "POST", f"{CALL}{action}/", act(Api(boss), made, action))
    listed = Api(boss).get(f"threads/{made.thread_id}/tool-calls/")
    check(schema, "GET", "threads/<str:thread_id>/tool-calls/", listed)
    described = schema["paths"][path_of(f"{CALL}{action}/")]["post"]
    assert {item["name"] for item in described["parameters"]} == {"thread_id", "tool_call_id"}
    said = body_of(schema, "threads/{thread_id}/tool-calls/{tool_call_id}/" + f"{action}/")
    assert set(BODIES[action]) <= set(said["properties"])


def test_it_is_true_of_an_open_stream_and_of_errors(api, agent, me, worker, schema):
    """The two that the others do not meet."""
    thread = create_thread(agent, owner=me, prompt="Hi")
    worker.say(worker.claim_step(), "Hel")
    response = api.get(f"threads/{thread.pk}/messages/", streams=1)
    check(schema, "GET", "threads/<str:thread_id>/messages/", response)
    stop_thread(thread)
    check(schema, "GET", "threads/<str:thread_id>/messages/", api.get(f"threads/{thread.pk}/messages/", streams=1))
    error = api.get("threads/x/").json()
    jsonschema.validate(error, strict(schema["components"]["schemas"]["Error"]))


def test_what_may_be_sent_is_described(schema):
    """The fields of the contract and no other."""
    thread, message = (body_of(schema, path) for path in ("threads/", "threads/{thread_id}/messages/"))
    assert set(thread["properties"]) == {"agent", "prompt", "parts", "client_id", "title", "metadata"}
    assert thread["required"] == ["agent"]
    assert set(message["properties"]) == {"prompt", "parts", "client_id", "metadata"}
    listed = schema["paths"]["/agents/threads/"]["get"]["parameters"]
    assert {item["name"] for item in listed} == {"agent", "archived", "cursor", "limit", "search", "status"}


def contents(described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield schema and examples of what an operation takes and answers, other than streams and files."""
    for item in (described.get("requestBody", {}), *described["responses"].values()):
        for media_type, content in item.get("content", {}).items():
            if media_type not in {"text/event-stream", "*/*"}:
                yield content


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and description of each operation."""
    for item in schema["paths"].values():
        for described in item.values():
            yield described["operationId"], described


def test_every_operation_shows_what_is_sent_and_answered(schema):
    """In examples that are as their own schema has it, for each error code one."""
    for name, described in operations(schema):
        for content in contents(described):
            assert content.get("examples"), f"{name} has no example of {content['schema']}"
            for shown in content["examples"].values():
                jsonschema.validate(shown["value"], strict({**content["schema"], "components": schema["components"]}))


def test_every_operation_names_the_errors_that_it_may_answer(schema):
    """Each status with its codes, and what they mean; those that pass with how long to wait."""
    for name, described in operations(schema):
        refused = {status: said for status, said in described["responses"].items() if status >= "400"}
        assert {"401", "403", "429", "503"} <= set(refused), name
        for status, said in refused.items():
            shown = said["content"]["application/json"]["examples"].values()
            for example in shown:
                assert f"`{example['value']['code']}`: {example['summary']}" in said["description"]
                assert example["value"]["detail"]
            assert ("Retry-After" in said.get("headers", {})) == (status in {"429", "503"})


def codes(schema: dict[str, Any], method: str, route: str) -> dict[str, set[str]]:
    """Return the error codes of an operation by status."""
    responses = schema["paths"][path_of(route)][method.lower()]["responses"]
    return {
        status: {shown["value"]["code"] for shown in said["content"]["application/json"]["examples"].values()}
        for status, said in responses.items()
        if status >= "400"
    }


def test_errors_are_those_of_the_path_the_body_and_the_operation(schema):
    """Two that differ in all three."""
    assert codes(schema, "POST", "threads/<str:thread_id>/messages/") == {
        "400": {"invalid", "invalid_parts", "parse_error", "too_deep"},
        "401": {"authentication_failed", "not_authenticated"},
        "403": {"authentication_failed", "not_authenticated", "permission_denied"},
        "404": {"thread_not_found"},
        "409": {"agent_removed", "idempotency_key_reused", "thread_busy"},
        "413": {"too_large"},
        "415": {"unsupported_media_type"},
        "429": {"requests_throttled", "sends_throttled", "throttled", "too_many_running"},
        "503": {"database_unavailable"},
    }
    assert codes(schema, "GET", "agents/") == {
        "400": {"invalid_cursor"},
        "401": {"authentication_failed", "not_authenticated"},
        "403": {"authentication_failed", "not_authenticated", "permission_denied"},
        "429": {"requests_throttled", "throttled"},
        "503": {"database_unavailable"},
    }


def test_it_says_how_to_sign_in_and_sorts_operations_under_headings(schema):
    """As the project has it; every heading is explained."""
    schemes = schema["components"]["securitySchemes"]
    types = {scheme["type"] for scheme in schemes.values()}
    assert {"apiKey"} <= types <= {"apiKey", "http"}
    headings = [tag["name"] for tag in schema["tags"]]
    assert all(tag["description"] for tag in schema["tags"])
    for name, described in operations(schema):
        assert {scheme for way in described["security"] for scheme in way} == set(schemes), name
        assert set(described["tags"]) <= set(headings), name
        assert described["summary"], name


def test_names_of_paths_lead_to_those_with_a_slash():
    """`reverse` gives the path of the contract."""
    assert reverse("durable_agents:thread", args=["x"]) == "/agents/threads/x/"


WITHOUT = """
import sys
sys.modules["drf_spectacular"] = None
import tests.settings
tests.settings.INSTALLED_APPS.remove("drf_spectacular")
del tests.settings.REST_FRAMEWORK["DEFAULT_SCHEMA_CLASS"]
import django
django.setup()
from django.test import RequestFactory
from django.urls import Resolver404, resolve
assert resolve("/agents/threads/").func(RequestFactory().get("/agents/threads/")).status_code in {401, 403}
try:
    resolve("/agents/schema/")
except Resolver404:
    print("no schema")
"""


def test_without_the_extra_there_is_no_schema_and_everything_else_works(child_env):
    """It is the extra `openapi`."""
    program = [sys.executable, "-c", WITHOUT]
    result = subprocess.run(program, cwd=ROOT, env=child_env, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "no schema\n"), result.stderr


def test_requests_at_once_get_the_schema_of_a_new_process(child_env):
    """Eight browsers ask for the first one together."""
    code = (
        "import threading, django; django.setup()\n"
        "from django.test import RequestFactory\n"
        "from durable_agents.api.openapi import schema\n"
        "together, made = threading.Barrier(8), []\n"
        "def ask():\n"
        "    together.wait()\n"
        "    made.append(schema.openapi(RequestFactory().get('/')))\n"
        "threads = [threading.Thread(target=ask) for _ in range(8)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "print(len(made))"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=child_env, capture_output=True, text=True, check=False)
    assert ended.stdout == "8\n", ended.stderr
