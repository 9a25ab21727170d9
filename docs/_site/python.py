"""Complete the hand-written entries of Python names: their signatures, and the tables that are made from the code."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable

from docs._site.public_names import HEADED, HEADING, all_entries

WIDTH = 88
_SHORT_SIGNATURE = re.compile(r"^`\w+\([^`]*\)`(?P<mark> →|:)(?P<said>(?:.+\n)+)", re.MULTILINE)


def with_signatures(page: str, text: str) -> str:
    """Return the page with the signature of each name after the heading of its entry.

    The signature that the page itself has in one line is replaced.
    """
    module = importlib.import_module(HEADED[page])

    def complete(heading: re.Match[str]) -> str:
        name = heading[1]
        value = getattr(module, name, None)
        if value is None or not callable(value) or page != "reference/python.md":
            return heading[0] if value is None else f"{heading[0]}\n\n{_anchor(f'{module.__name__}.{name}')}"
        parts = [heading[0], _anchor(f"{module.__name__}.{name}"), f"```python\n{signature(name, value)}\n```"]
        if hasattr(module, f"a{name}"):
            parts.append(f"{_anchor(f'{module.__name__}.a{name}')}Async version: `a{name}`\n{{ .twin }}")
        return "\n\n".join(parts)

    return _without_short_signatures(HEADING.sub(complete, text))


def _anchor(name: str) -> str:
    """Return an anchor to which other entries can link by the full name."""
    return f"[](){{ #{name} }}"


def _without_short_signatures(text: str) -> str:
    """Remove the signatures in one line. Keep what the page says in the same paragraph about the result."""

    def remaining(match: re.Match[str]) -> str:
        mark, said = match["mark"], " ".join(match["said"].split())
        if mark == ":":
            return f"{said[:1].upper()}{said[1:]}\n"
        return "" if re.fullmatch(r"`[\w.]+`", said) else f"Returns: {said}\n"

    return _SHORT_SIGNATURE.sub(remaining, text)


def signature(name: str, value: Callable[..., object]) -> str:
    """Return the signature of a function or class with its annotations, on several lines if it is long."""
    found = inspect.signature(value)
    parameters = [_parameter(one) for one in found.parameters.values()]
    marked = _marked(list(found.parameters.values()), parameters)
    returned = found.return_annotation
    tail = "" if inspect.isclass(value) or returned is found.empty else f" -> {_annotation(returned)}"
    line = f"{name}({', '.join(marked)}){tail}"
    return line if len(line) <= WIDTH else "\n".join([f"{name}(", *(f"    {one}," for one in marked), f"){tail}"])


def _parameter(parameter: inspect.Parameter) -> str:
    annotated = parameter.annotation is not parameter.empty
    kind = f": {_annotation(parameter.annotation)}" if annotated else ""
    if parameter.default is parameter.empty:
        return f"{parameter.name}{kind}"
    default = repr(parameter.default).replace("'", '"')
    return f"{parameter.name}{kind}{' = ' if annotated else '='}{default}"


def _annotation(annotation: object) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:models|actors)\.", "", text)


def _marked(parameters: list[inspect.Parameter], written: list[str]) -> list[str]:
    """Return the parameters with the marks for those that have no name for the caller, or only a name."""
    marked = []
    kinds = [parameter.kind for parameter in parameters]
    for number, (parameter, text) in enumerate(zip(parameters, written, strict=True)):
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.KEYWORD_ONLY not in kinds[:number]:
            marked.append("*")
        marked.append(text)
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.POSITIONAL_ONLY not in kinds[number + 1 :]:
            marked.append("/")
    return marked


def error_table() -> str:
    """Return a table of all errors, with their codes and statuses."""
    from durable_agents import exceptions  # noqa: PLC0415 - reads Django's settings

    places = all_entries()
    rows = ["| error | `code` | `status_code` |", "|---|---|---|"]
    for name, value in vars(exceptions).items():
        if inspect.isclass(value) and issubclass(value, exceptions.DurableAgentsError):
            full = next(full for full in (f"durable_agents.{name}", f"{value.__module__}.{name}") if full in places)
            rows.append(f"| [`{name}`][{full}] | `{value.code}` | {value.status_code or '-'} |")
    return "\n".join(rows)


def error_kind_table() -> str:
    """Return a table of the error kinds: whether a failed model call is retried, and the text for end users."""
    from durable_agents import exceptions  # noqa: PLC0415 - as above

    rows = [
        f"| `{kind.value}` | `{kind.name}` | {'yes' if kind.retryable else 'no'} | {kind.safe_message} |"
        for kind in exceptions.ErrorKind
    ]
    return "\n".join(["| kind | member | retried | text for end users |", "|---|---|---|---|", *rows])


def name_list() -> str:
    """Return all names that have an entry of their own, by module, with links."""
    names = all_entries()
    modules: dict[str, list[str]] = {}
    for name in sorted(names, key=str.lower):
        module, _, short = name.rpartition(".")
        if f"{module}.{short.removeprefix('a')}" not in names or not short.startswith("a"):
            modules.setdefault(module, []).append(f"- [`{short}`][{name}]")
    lists = [
        f'### {module} {{ #{module} }}\n\n<div class="names" markdown>\n\n{chr(10).join(links)}\n\n</div>'
        for module, links in sorted(modules.items())
    ]
    return "\n\n".join(lists)
