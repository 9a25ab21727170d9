"""The German catalogue has every text of the package that goes through gettext."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils.translation import gettext, ngettext, override
from django.utils.translation.template import templatize

import durable_agents
from durable_agents.api.serializers import threads_json
from durable_agents.chat_texts import translated_errors
from durable_agents.exceptions import ErrorKind
from durable_agents.models import Thread, ToolCallStatus

PACKAGE = Path(durable_agents.__file__).parent
SAME = {"System", "Status", "Version"}
"""Words that German writes in the same way."""
CALLS = {"_", "gettext", "gettext_lazy", "gettext_noop", "ngettext", "ngettext_lazy"}
IN_TEMPLATE = re.compile(r"""gettext\(\s*u?('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")""")


def texts_of_code() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in CALLS:
                yield from (item.value for item in node.args[:1] if isinstance(item, ast.Constant))


def texts_of_templates() -> Iterator[str]:
    for path in PACKAGE.rglob("*.html"):
        code = templatize(path.read_text(encoding="utf-8"))
        yield from (ast.literal_eval(match[1]) for match in IN_TEMPLATE.finditer(code))


def translated(text: str) -> str:
    """Return the German text. One that depends on a number is translated for the number two."""
    return ngettext(text, text, 2) if ngettext(text, text, 2) != text else gettext(text)


@pytest.mark.parametrize("texts", [texts_of_code, texts_of_templates])
def test_every_text_has_a_translation(texts):
    found = set(texts())
    assert len(found) > 40
    with override("de"):
        missing = {text for text in found if translated(text) == text}
    assert missing <= SAME


@pytest.mark.django_db
def test_errors_of_answers_are_german_over_rest_and_in_the_element():
    thread = Thread.objects.create(agent="x", error_code="network", error_message=ErrorKind.NETWORK.safe_message)
    with override("de"):
        (shown,) = threads_json([thread])
        assert shown["error"] == {"code": "network", "message": "Das Modell ist nicht erreichbar."}
        assert translated_errors()["error:network"] == "Das Modell ist nicht erreichbar."
        assert str(ToolCallStatus.APPROVAL_REQUESTED.label) == "Genehmigung erbeten"
    with override("en"):
        assert translated_errors() == {}
