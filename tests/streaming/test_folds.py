"""The three readers of chunks agree: the fold of the server, that of the browser module, and the AI SDK's reader.

`PROOF=full pytest tests/streaming/test_folds.py` compares a thousand lists of chunks; otherwise, it is a tenth.
"""

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from durable_agents.parts import Chunk, Part, fold
from tests.architecture.sources import ROOT

LISTS = 1_000
SCRIPT = ROOT / "tests" / "js" / "fold-chunks.mjs"
TEXTS = ("a", " ", "é", "\n", "🙂", "{", '"', "</b>", "\u2028", "عربي")
INPUTS = ({}, {"city": "Paris"}, {"deep": [1, None, {"x": "é"}]}, {"text": '"quoted"\n{}'})

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="needs Node"),
    pytest.mark.skipif(not (ROOT / "node_modules" / "ai").is_dir(), reason="the AI SDK is not installed: npm ci"),
]


def written(chance: random.Random, name: str) -> list[Chunk]:
    """Return the chunks of one text, reasoning or tool call, from its beginning to its end."""
    kind = chance.choice(["text", "reasoning", "tool"])
    if kind == "tool":
        call = {"toolCallId": name, "toolName": chance.choice(["add", "get_weather"])}
        arguments = chance.choice(INPUTS)
        text = json.dumps(arguments)
        cuts = sorted(chance.sample(range(len(text) + 1), chance.randrange(3)))
        pieces = [text[one:other] for one, other in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        deltas = [{"type": "tool-input-delta", "toolCallId": name, "inputTextDelta": piece} for piece in pieces]
        available = {"type": "tool-input-available", **call, "input": arguments}
        return [{"type": "tool-input-start", **call}, *(deltas if chance.random() < 0.5 else []), available]
    said = [{"type": f"{kind}-delta", "id": name, "delta": chance.choice(TEXTS)} for _ in range(chance.randrange(6))]
    signed = {"providerMetadata": {"anthropic": {"signature": "x"}}} if chance.random() < 0.3 else {}
    return [{"type": f"{kind}-start", "id": name}, *said, {"type": f"{kind}-end", "id": name, **signed}]


def chunk_list(chance: random.Random) -> Iterator[Chunk]:
    """Yield the chunks of a step whose parts are written in turns. A third of the steps end in the middle."""
    yield {"type": "start-step"}
    writers = [written(chance, f"p{number}") for number in range(chance.randint(1, 5))]
    left = sum(map(len, writers)) if chance.random() < 0.67 else chance.randrange(1, sum(map(len, writers)) + 1)
    while left and (open_writers := [writer for writer in writers if writer]):
        yield chance.choice(open_writers).pop(0)
        left -= 1


def plain(parts: list[Part]) -> list[Any]:
    """Return the parts without what one reader alone adds.

    The AI SDK parses unfinished arguments, and keeps the ids of reasoning; the server and the browser module do not.
    """
    kept = []
    for part in json.loads(json.dumps(parts)):
        dropped = {"id", "rawInput"} | ({"input"} if part.get("state") == "input-streaming" else set())
        kept.append({name: value for name, value in part.items() if name not in dropped and value is not None})
    return kept


def test_the_folds_of_python_of_javascript_and_of_the_ai_sdk_agree(rounds: Callable[[int], int]) -> None:
    """On random lists of chunks, finished or not."""
    lists = [list(chunk_list(random.Random(seed))) for seed in range(rounds(LISTS))]
    ended = subprocess.run(
        ["node", SCRIPT], input=json.dumps(lists), capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr
    for seed, (chunks, (ours, theirs)) in enumerate(zip(lists, json.loads(ended.stdout), strict=True)):
        assert plain(fold(chunks)) == plain(ours) == plain(theirs), f"seed {seed}: {chunks}"
