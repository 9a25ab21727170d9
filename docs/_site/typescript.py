"""Read declarations and their comments from the ``.d.ts`` files of the JavaScript modules.

The TypeScript compiler writes these files, so only the subset of the language that it writes there is understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(r"(?P<comment>/\*\*.*?\*/)|\"[^\"]*\"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<end>;)", re.DOTALL)
_COMMENT = re.compile(r"[ \t]*/\*\*.*?\*/\n?", re.DOTALL)
_BLOCK = re.compile(r"(?:export |declare )*(?:class|namespace) ")
_HEAD = re.compile(r"(?:export |declare )*(?P<kind>function|class|type|const|let|namespace) (?P<name>\w+)")
_MEMBER = re.compile(r"(?:static |readonly |get |set )*(?P<name>[\w$]+)\??\s*(?=[(:<])")
_TAG = re.compile(r"(?:^|\s)@(?P<tag>param|returns|type|typedef|property|template)\b\s*")


@dataclass(frozen=True, kw_only=True)
class Comment:
    """What a documentation comment says."""

    text: str = ""
    """The description, in Markdown."""
    parameters: dict[str, str] = field(default_factory=dict)
    """The parameters that have a description, by name."""
    returns: str = ""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """A declaration, or a member of one."""

    name: str
    kind: str
    """``function``, ``class``, ``type``, ``const``, ``let``, ``namespace`` or ``member``."""
    code: str
    """The declaration without comments, and without ``export`` and ``declare``."""
    comment: Comment
    is_exported: bool = False
    members: tuple[Declaration, ...] = ()
    """The members of a class, of an object type, or of the object that a function returns."""

    @property
    def signature(self) -> str:
        """The declaration without the members that are listed separately."""
        if not self.members:
            return self.code
        if self.kind == "class":
            return self.code.partition("{")[0].strip()
        head, _, tail = _around_last_object(self.code)
        return f"{head}{{ … }}{tail}"

    def names(self) -> set[str]:
        """Return the words of what is shown. Among them are the names of the types to which it refers."""
        shown = [self.signature, *(member.code for member in self.members)]
        return {word for code in shown for word in re.findall(r"\w+", code)} - {self.name}


def declarations(source: str) -> list[Declaration]:
    """Return the declarations of a file in their order, exported or not."""
    found = []
    for comment, code in _statements(source):
        head = _HEAD.match(code)
        if head is not None:
            found.append(_declaration(head["name"], head["kind"], comment, code))
    return found


def exported_names(script: str) -> set[str]:
    """Return the names that a JavaScript module exports."""
    declared = re.findall(r"^export (?:async )?(?:function\*?|class|const|let) (\w+)", script, re.MULTILINE)
    listed = re.findall(r"^export \{([^}]*)\}", script, re.MULTILINE)
    return {*declared, *(item.rpartition(" as ")[2].strip() for items in listed for item in items.split(","))}


def comments_of_constants(script: str) -> dict[str, Comment]:
    """Return the comments of exported constants, which the compiler leaves out, by name. An alias says what it is."""
    found = re.findall(r"(/\*\*(?:(?!\*/).)*\*/)\nexport const (\w+) =", script, re.DOTALL)
    aliases = re.findall(r"^export const (\w+) = (\w+);$", script, re.MULTILINE)
    same = {name: Comment(text=f"The same as [`{other}`](#{other}).") for name, other in aliases}
    return same | {name: parsed_comment(comment) for comment, name in found}


def _declaration(name: str, kind: str, comment: str, code: str) -> Declaration:
    is_exported = code.startswith("export ")
    code = re.sub(r"^(export |declare )+", "", code)
    members: list[Declaration] = []
    if kind == "class":
        members = _members(code[code.index("{") + 1 : code.rindex("}")])
    elif kind == "function" or (kind == "type" and re.match(rf"type {name} = \{{", code)):
        members = _members(_around_last_object(code)[1]) if _ends_in_object(code) else []
    return Declaration(
        name=name,
        kind=kind,
        code=_without_comments(code),
        comment=parsed_comment(comment),
        is_exported=is_exported,
        members=tuple(members),
    )


def _members(body: str) -> list[Declaration]:
    found = []
    for comment, code in _statements(body):
        head = _MEMBER.match(code)
        if head is not None and head["name"] != "constructor":
            shown = _without_comments(code)
            found.append(Declaration(name=head["name"], kind="member", code=shown, comment=parsed_comment(comment)))
    return found


def _statements(source: str) -> Iterator[tuple[str, str]]:
    """Yield each statement: the last comment before it, and its code without the final semicolon."""
    comment, begin, depth = "", 0, 0
    for token in _TOKEN.finditer(source):
        if token["comment"] and not source[begin : token.start()].strip():
            comment, begin = token["comment"], token.end()
        depth += bool(token["open"]) - bool(token["close"])
        is_block_end = token["close"] == "}" and depth == 0 and _BLOCK.match(source[begin:].lstrip())
        if depth == 0 and (token["end"] or is_block_end):
            yield comment, source[begin : token.end()].strip().removesuffix(";")
            comment, begin = "", token.end()


def _ends_in_object(code: str) -> bool:
    return bool(re.search(r"\}( \| null)?$", code)) and bool(re.search(r"(\): | = )\{", code))


def _around_last_object(code: str) -> tuple[str, str, str]:
    """Return the code before the object type at the end, the members of the object type, and the code after it."""
    end = code.rindex("}")
    depth = 0
    for position in range(end, -1, -1):
        depth += (code[position] == "}") - (code[position] == "{")
        if depth == 0:
            return code[:position], code[position + 1 : end], code[end + 1 :]
    raise ValueError(f"Unbalanced braces: {code}")


def _without_comments(code: str) -> str:
    return _COMMENT.sub("", code).strip()


def parsed_comment(comment: str) -> Comment:
    """Parse a JSDoc comment. Types are left out, since the declaration has them."""
    inner = comment.removeprefix("/**").removesuffix("*/")
    text = "\n".join(re.sub(r"^ *\* ?", "", line).rstrip() for line in inner.splitlines()).strip()
    pieces = _TAG.split(text)
    description, tags = pieces[0].strip(), list(zip(pieces[1::2], pieces[2::2], strict=True))
    if any(tag == "typedef" for tag, _ in tags):
        return Comment()
    parameters: dict[str, str] = {}
    returns = ""
    for tag, rest in tags:
        said = " ".join(_after_type(rest).split())
        if tag == "param":
            name, _, what = said.partition(" ")
            parameters |= {name.strip("[]"): what} if what else {}
        elif tag == "returns":
            returns = said
        elif tag == "type" and said:
            description = f"{description} {said}".strip()
    return Comment(text=description, parameters=parameters, returns=returns)


def _after_type(text: str) -> str:
    """Return the text after a type in braces at its beginning."""
    text = text.strip()
    if not text.startswith("{"):
        return text
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[position + 1 :].strip()
    return text
