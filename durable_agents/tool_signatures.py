"""Inspect the signature of a tool's function. Find the parameter for the context, and build a Pydantic model of the
other parameters.

A tool with its own JSON schema needs no such model; its arguments are checked against the schema. Pydantic is imported
only when a model is first needed.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Union, get_args, get_origin, get_type_hints

from django.core.exceptions import ImproperlyConfigured

from durable_agents.json_schema_validation import problems
from durable_agents.logs import log_error

if TYPE_CHECKING:
    from pydantic import BaseModel

_NAMED = frozenset({inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY})


@dataclass(frozen=True)
class Signature:
    """The parameters of a tool's function. ``context_class`` is the class of the context."""

    tool_name: str
    function: Any
    context_class: type

    _allowed_kinds: ClassVar[Collection[inspect._ParameterKind]] = _NAMED

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The function's type hints as objects. Raises NameError if a hint uses a name that does not exist or is
        defined later.
        """
        function = self.function if inspect.isroutine(self.function) else type(self.function).__call__
        try:
            return get_type_hints(function, include_extras=True)
        except NameError:
            # Add ToolContext. Modules often import it only under TYPE_CHECKING, so it is missing at run time.
            own: dict[str, object] = getattr(inspect.unwrap(function), "__globals__", {})
            known = {self.context_class.__name__: self.context_class, **own}
            return get_type_hints(function, globalns=known, include_extras=True)

    def mistakes(self) -> Iterator[tuple[bool, str]]:
        """Check the tool's declaration. For each rule, yield whether the rule is broken, and its error message.

        If a type hint uses a class that is defined later in the module, the type hints are checked only when the tool
        is first used, and by ``manage.py check``.
        """
        yield not callable(self.function), f"a tool is made of a function, not of {self.function!r}."
        yield isinstance(self.function, partial), "a partial has no hints of its own. Write a function that calls it."
        scope = getattr(self.function, "__qualname__", "").rpartition(".")[0]
        first = next(iter(self._parameters), None)
        gets_instance = first is not None and first.name in {"self", "cls"} and first.annotation is first.empty
        yield (
            bool(scope) and not scope.endswith("<locals>") and gets_instance,
            "a tool has no instance to be called on. Move it out of the class, or make it static.",
        )
        for parameter in self._parameters:
            yield (
                parameter.kind not in self._allowed_kinds,
                f"parameter {parameter.name!r} must be an ordinary named parameter: models name their arguments.",
            )
        try:
            hints = self.hints
        except NameError:
            return
        except Exception as error:
            yield True, f"its type hints cannot be read: {error}"
            return
        known = self.context_class.__name__
        found = [name for name, hint in hints.items() if self._is_context(hint) and name != "return"]
        yield len(found) > 1, f"parameters {', '.join(found)} are all annotated with {known}. Leave one of them."
        for name, hint in hints.items():
            yield (
                name not in {*found, "return"} and _mentions(hint, self.context_class),
                f"parameter {name!r} gets the context only where it is annotated with {known} and nothing else.",
            )
        unannotated = [item.name for item in self._parameters if item.name == "ctx" and "ctx" not in hints]
        yield bool(unannotated), f"annotate ctx with {known}; without it, the model would be asked for it."

    @cached_property
    def context_parameter(self) -> str | None:
        """The name of the parameter that gets the context, or None."""
        return next((name for name, hint in self.hints.items() if self._is_context(hint) and name != "return"), None)

    def _is_context(self, hint: object) -> bool:
        """Return whether a hint is the context's class. The class can be optional or inside ``Annotated``."""
        bare = _bare(hint)
        if get_origin(bare) in {Union, UnionType}:
            return {_bare(item) for item in get_args(bare)} - {NoneType} == {self.context_class}
        return bare is self.context_class

    @cached_property
    def _parameters(self) -> list[inspect.Parameter]:
        if not callable(self.function):
            return []
        if sys.version_info >= (3, 14):
            from annotationlib import Format  # noqa: PLC0415 - new in Python 3.14

            # An annotation may name a class that is defined later in the module.
            signature = inspect.signature(self.function, annotation_format=Format.FORWARDREF)
        else:
            signature = inspect.signature(self.function)
        return list(signature.parameters.values())

    @cached_property
    def _names(self) -> dict[str, str]:
        """A dict from the fields of the Pydantic model to the parameters of the function.

        Pydantic reserves names such as ``_x``, ``copy`` and ``model_config``. Therefore, fields have generated names,
        with the parameter names as aliases.
        """
        names = [parameter.name for parameter in self._parameters if parameter.name != self.context_parameter]
        return {f"argument_{number}": name for number, name in enumerate(names)}

    @cached_property
    def model(self) -> type[BaseModel]:
        """A Pydantic model of the arguments. Unknown arguments are refused.

        Raises ImproperlyConfigured if Pydantic cannot handle a type hint.
        """
        from pydantic import ConfigDict, create_model  # noqa: PLC0415 - web processes need no schema

        parameters = {parameter.name: parameter for parameter in self._parameters}
        try:
            fields: dict[str, Any] = {field: self._field(parameters[name]) for field, name in self._names.items()}
            made: type[BaseModel] = create_model(self.tool_name, __config__=ConfigDict(extra="forbid"), **fields)
            shown = made.model_json_schema().get("properties", {})
        except Exception as error:
            raise ImproperlyConfigured(f"Tool {self.tool_name!r}: its parameters have no schema: {error}") from error
        if len(shown) != len(fields):
            raise ImproperlyConfigured(
                f"Tool {self.tool_name!r}: models would see {', '.join(shown) or 'none'} of the parameters "
                f"{', '.join(self._names.values())}. Give each an ordinary type, and an alias of its own."
            )
        return made

    @property
    def json_schema(self) -> dict[str, object]:
        """The JSON schema of the arguments, as models get it."""
        schema = self.model.model_json_schema()
        schema.pop("title", None)
        return schema

    def _field(self, parameter: inspect.Parameter) -> tuple[object, object]:
        from pydantic import Field  # noqa: PLC0415 - as above

        hint = self.hints.get(parameter.name, Any)
        base, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        # This Field comes first, so that a Field(alias=...) in the project's annotation overrides it.
        annotation: object = Annotated[(base, Field(alias=parameter.name), *extras)]
        return annotation, ... if parameter.default is parameter.empty else parameter.default

    def validate(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Validate the model's arguments. Return them as Python values by parameter name, with defaults filled in.

        Raises ValueError with a text for the model if the arguments are invalid.
        """
        from pydantic import ValidationError  # noqa: PLC0415 - as above

        model = self.model
        try:
            made = model.model_validate(arguments)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
            raise ValueError(f"Invalid arguments for {self.tool_name}: {problems}") from error
        except Exception as error:
            # One of the project's own validators has raised an unexpected error.
            log_error("arguments could not be validated", action="validate", tool=self.tool_name)
            raise ValueError(f"Invalid arguments for {self.tool_name}: they could not be checked.") from error
        return {name: getattr(made, field) for field, name in self._names.items()}


@dataclass(frozen=True)
class SchemaSignature(Signature):
    """The parameters of a tool with its own JSON schema. Type hints are used only to find the parameter for the
    context.

    The function gets the model's arguments unchanged, as keyword arguments. It may collect them in a ``**parameter``.
    """

    schema: object

    _allowed_kinds = (*_NAMED, inspect.Parameter.VAR_KEYWORD)

    def mistakes(self) -> Iterator[tuple[bool, str]]:
        """Check the tool's declaration. For each rule, yield whether the rule is broken, and its error message."""
        schema = self.schema if isinstance(self.schema, Mapping) else {"type": None}
        properties = schema.get("properties", {})
        yield (
            schema.get("type", "object") != "object" or not isinstance(properties, Mapping),
            'schema is the JSON schema of the arguments, a dict with "type": "object" and a dict of "properties".',
        )
        yield from super().mistakes()
        yield (
            isinstance(properties, Mapping) and self.context_parameter in properties,
            f"its schema has a property {self.context_parameter!r}, as the context's parameter. Rename the parameter.",
        )

    @property
    def json_schema(self) -> dict[str, object]:
        """The JSON schema of the arguments, as models get it."""
        schema = self.schema if isinstance(self.schema, Mapping) else {}
        return {"type": "object", "properties": {}, **schema}

    def validate(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Validate the model's arguments, and return them unchanged.

        Raises ValueError with a text for the model if the arguments do not fit the schema or the function's parameters.
        """
        found = problems(dict(arguments), self.schema)
        context = {} if self.context_parameter is None else {self.context_parameter: None}
        if context.keys() & arguments.keys():
            found.append(f"{self.context_parameter}: is not allowed")
        if not found:
            try:
                inspect.signature(self.function).bind(**arguments, **context)
            except TypeError as error:
                found.append(str(error))
        if found:
            raise ValueError(f"Invalid arguments for {self.tool_name}: {'; '.join(found[:10])}")
        return dict(arguments)


def _bare(hint: object) -> object:
    """Return a hint without ``Annotated``. For an alias from a ``type`` statement, return the type that the alias
    stands for.
    """
    bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return getattr(bare, "__value__", bare)


def _mentions(hint: object, wanted: type) -> bool:
    """Return whether a type hint contains this class or a subclass."""
    bare = _bare(hint)
    if inspect.isclass(bare) and not get_args(bare):
        return issubclass(bare, wanted)
    return any(_mentions(item, wanted) for item in get_args(bare))
