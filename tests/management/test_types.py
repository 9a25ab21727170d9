"""`manage.py agents_types` writes TypeScript types that the TypeScript compiler accepts and that fit the agents."""

import shutil
import subprocess
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from enum import Enum
from io import StringIO
from pathlib import Path
from typing import Literal

import pytest
from django.core.management import CommandError, call_command
from pydantic import BaseModel, Field

from durable_agents import Agent, Tool, ToolContext, tool
from durable_agents.agents import registry
from durable_agents.management.typescript import TypeScript
from tests.processes import ROOT


class Size(Enum):
    SMALL = "S"
    LARGE = "L"


class Item(BaseModel):
    sku: str
    count: int = Field(default=1, ge=1)
    parts: "list[Item]" = []


class Order(BaseModel):
    items: list[Item]
    total: Decimal
    due: date | None = None


@tool
def place_order(
    ctx: ToolContext, items: list[Item], size: Size, note: str | None = None, speed: Literal["slow", "fast"] = "slow"
) -> Order:
    """Place an order.

    */ alert("not the end of the comment") /*
    """
    raise AssertionError


@tool(name="where-is-it", kind="client")
def locate() -> tuple[float, float]:
    """Ask the browser."""
    raise AssertionError


@tool
def count_things(prices: dict[str, float]):
    """Return whatever there is."""


FOUND = Tool(
    "found",
    lambda **_: None,
    schema={"type": "object", "properties": {"a b": {"type": ["string", "null"]}}, "required": ["a b"]},
)


@pytest.fixture(autouse=True)
def _agents() -> Iterator[None]:
    tools = [place_order, locate, count_things, FOUND]
    Agent("typed", model="openai/x", tools=tools, public=True)
    Agent("hidden.one", model="openai/x", tools=[locate])
    yield
    registry.remove("typed")
    registry.remove("hidden.one")


def written(*arguments: str) -> str:
    out = StringIO()
    call_command("agents_types", *arguments, stdout=out)
    return out.getvalue()


def test_public_agents_are_written_and_others_only_by_name():
    assert "  typed: {" in written()
    assert "hidden" not in written()
    assert '  "hidden.one": {' in written("hidden.one")


def test_arguments_and_results_have_their_types():
    text = written("typed")
    assert "input: {items: Array<Item>; size: Size; note?: string | null; speed?: " in text
    assert 'export type Size = "S" | "L";' in text
    assert "output: {items: Array<Item>; total: string; due?: string | null};" in text
    assert "export type Item = {sku: string; count?: number; parts?: Array<Item>};" in text
    assert "output: [number, number];" in text
    assert "input: {prices: Record<string, number>};" in text
    assert 'input: {"a b": string | null};' in text
    assert "output: unknown;" in text


@pytest.mark.skipif(not (ROOT / "node_modules/typescript").is_dir(), reason="npm ci has not been run")
def test_the_compiler_accepts_them_and_refuses_what_does_not_fit(tmp_path: Path):
    (tmp_path / "agents.ts").write_text(written("typed"))
    use = """import type {Tools, AgentName} from "./agents";
const name: AgentName = "typed";
const order: Tools<"typed">["place_order"]["input"] = {items: [{sku: "a", parts: [{sku: "b"}]}], size: "S"};
const place: Tools<"typed">["where-is-it"]["output"] = [1, 2];
export {name, order, place};
"""
    (tmp_path / "use.ts").write_text(use)
    (tmp_path / "misuse.ts").write_text(use.replace('size: "S"', 'size: "XL"'))
    compiler = [shutil.which("node") or "node", ROOT / "node_modules/typescript/bin/tsc", "--noEmit", "--strict"]
    files = [tmp_path / "use.ts", tmp_path / "misuse.ts"]
    errors = subprocess.run([*compiler, *files], check=False, capture_output=True, text=True).stdout.splitlines()
    assert len(errors) == 1
    assert "misuse.ts" in errors[0]
    assert "'\"XL\"' is not assignable to type 'Size'" in errors[0]


def test_definitions_of_one_name_that_differ_get_names_of_their_own():
    module, other = TypeScript(), {"type": "object", "properties": {"at": {"$ref": "#/$defs/Place"}}}
    module.type_of({**other, "$defs": {"Place": {"type": "string"}}})
    assert module.type_of({**other, "$defs": {"Place": {"type": "integer"}}}) == "{at?: Place2}"
    assert module.type_of({**other, "$defs": {"Place": {"type": "string"}}}) == "{at?: Place}"
    text = module.module([])
    assert "export type Place = string;\n" in text
    assert "export type Place2 = number;\n" in text


def test_definitions_are_equal_only_with_what_they_refer_to():
    module = TypeScript()

    def of(kind: str) -> str:
        order = {"properties": {"place": {"$ref": "#/$defs/Place"}}}
        return module.type_of({"$ref": "#/$defs/Order", "$defs": {"Order": order, "Place": {"type": kind}}})

    assert [of("string"), of("integer"), of("integer"), of("string")] == ["Order", "Order2", "Order2", "Order"]
    assert "export type Order2 = {place?: Place2};\n" in module.module([])


def test_check_fails_if_the_file_is_old(tmp_path: Path):
    path = tmp_path / "agents.ts"
    with pytest.raises(CommandError, match="not up to date"):
        written("typed", "--check", "-o", str(path))
    written("typed", "-o", str(path))
    assert written("typed", "--check", "-o", str(path)) == ""
    with pytest.raises(CommandError, match="not up to date"):
        written("hidden.one", "--check", "-o", str(path))


def test_mistakes_are_named():
    with pytest.raises(CommandError, match="nobody"):
        written("nobody")
    with pytest.raises(CommandError, match="--output"):
        written("--check")


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, "unknown"),
        ({"type": "object"}, "Record<string, unknown>"),
        ({"type": "object", "additionalProperties": False}, "Record<string, never>"),
        ({"type": "array"}, "Array<unknown>"),
        ({"type": "array", "prefixItems": [{"type": "string"}]}, "[string, ...Array<unknown>]"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "number"}]}, "string | number"),
        ({"allOf": [{"type": "string"}, {"enum": ["a", "b"]}]}, 'string & ("a" | "b")'),
        ({"const": 'a"b'}, '"a\\"b"'),
        ({"enum": [1, True, None]}, "1 | true | null"),
        ({"$ref": "#/definitions/other"}, "unknown"),
        ({"properties": {"x-y": False}}, '{"x-y"?: never}'),
    ],
)
def test_schemas_become_types(schema, expected):
    assert TypeScript().type_of(schema) == expected
