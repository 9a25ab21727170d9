"""Arguments are checked against a JSON schema that somebody else wrote."""

import jsonschema
import pytest

from durable_agents.json_schema_validation import problems

ADDRESS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TREE = {"properties": {"children": {"items": {"$ref": "#"}}, "name": {"type": "string"}}, "required": ["name"]}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, 1),
        ({"type": "integer"}, 1.5),
        ({"type": "integer"}, True),
        ({"type": "integer"}, "1"),
        ({"type": "number"}, None),
        ({"type": "boolean"}, 0),
        ({"type": ["string", "null"]}, 1),
        ({"enum": ["a", 1]}, True),
        ({"const": 1}, 2),
        ({"minimum": 1}, 0),
        ({"maximum": 1}, 2),
        ({"exclusiveMinimum": 1}, 1),
        ({"exclusiveMaximum": 1}, 1),
        ({"minLength": 1}, ""),
        ({"maxLength": 1}, "ab"),
        ({"minItems": 1}, []),
        ({"maxItems": 1}, [1, 2]),
        ({"items": {"type": "string"}}, ["a", 1]),
        (ADDRESS, {}),
        (ADDRESS, {"city": 1}),
        (ADDRESS | {"additionalProperties": False}, {"city": "Rome", "street": "x"}),
        (ADDRESS | {"additionalProperties": {"type": "string"}}, {"city": "Rome", "street": 1}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 1),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, 1),
        ({"allOf": [{"type": "string"}, {"minLength": 2}]}, "a"),
        ({"properties": {"to": {"$ref": "#/$defs/a~1b"}}, "$defs": {"a/b": ADDRESS}}, {"to": {"city": 1}}),
        (TREE, {"name": "a", "children": [{"name": "b", "children": [{}]}]}),
        (False, 1),
    ],
)
def test_a_value_that_the_schema_does_not_allow_is_refused(schema, value):
    """A complete validator agrees."""
    assert not jsonschema.Draft202012Validator(schema).is_valid(value)
    assert problems(value, schema)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, {"anything": [1]}),
        (True, 1),
        ({"type": "integer"}, 2.0),
        ({"type": "number"}, 10**400),
        ({"type": ["string", "null"]}, None),
        ({"enum": ["a", 1]}, 1),
        ({"minimum": 1, "maxLength": 1}, [1, 2, 3]),
        (ADDRESS, {"city": "Rome", "street": 1}),
        (ADDRESS | {"additionalProperties": False, "patternProperties": {"^x-": {}}}, {"city": "Rome", "x-a": 1}),
        ({"anyOf": [{"type": "string"}, {"minimum": 2}]}, 3),
        (TREE, {"name": "a", "children": [{"name": "b", "children": []}]}),
    ],
)
def test_a_value_that_the_schema_allows_is_accepted(schema, value):
    """A complete validator agrees."""
    assert jsonschema.Draft202012Validator(schema).is_valid(value)
    assert problems(value, schema) == []


@pytest.mark.parametrize(
    "schema",
    [
        {"type": [["string"]]},
        {"type": "date"},
        {"required": [["a"], 1, "city"]},
        {"required": "city"},
        {"properties": []},
        {"enum": "city"},
        {"anyOf": {}},
        {"minItems": "many"},
        {"$ref": "https://schemas.example/address"},
        {"$ref": "#/no/such/place"},
        {"$ref": 1},
        {"items": 1},
        {"format": "date", "pattern": "(a+)+$"},
        "a text",
    ],
)
def test_a_keyword_that_makes_no_sense_here_is_ignored(schema):
    """The tool can still be called; its server has the last word."""
    assert problems({"city": "Rome"}, schema) == []


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
    ],
)
def test_a_schema_without_end_is_given_up(schema):
    """It refers to itself."""
    assert "too deeply nested or too large" in problems({}, schema)[0]


def test_the_error_names_the_place_and_the_rule():
    """The model can correct its call."""
    schema = {"properties": {"to": {"items": ADDRESS}, "size": {"enum": ["s", "m"]}}}
    assert problems({"to": [{"city": "Rome"}, {"city": 7}, {}], "size": "xl"}, schema) == [
        "to.1.city: must be of the type string",
        "to.2.city: is required",
        "size: must be one of 's', 'm'",
    ]
