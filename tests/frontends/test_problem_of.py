"""`problemOf` reads the errors of `useChat`, whatever they come from."""

import json
import shutil
import subprocess

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient

from tests.api.calls import person
from tests.packaging.projects import ROOT

MODULE = ROOT / "durable_agents" / "static" / "durable_agents" / "ai-sdk.js"


@pytest.mark.django_db
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_it_tells_refusals_from_other_errors(tmp_path):
    """The client puts the body of a refusal into the message of its error."""
    client = AsyncClient()
    client.force_login(person("ada"))
    body = {"id": "c1", "messages": []}
    response = async_to_sync(client.post)("/agents/chat", body, content_type="application/json")
    refused = response.content.decode()
    messages = [refused, "Failed to fetch", "The run failed."]
    module = tmp_path / "problems.mjs"
    shown = f"console.log(JSON.stringify({json.dumps(messages)}.map((message) => problemOf(new Error(message)))));"
    module.write_text(f"import {{ problemOf }} from {json.dumps(MODULE.as_uri())};\n{shown}\n", encoding="utf-8")
    ended = subprocess.run(["node", module], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == [
        {"code": json.loads(refused)["code"], "text": json.loads(refused)["detail"]},
        {"code": "", "text": "Failed to fetch"},
        {"code": "", "text": "The run failed."},
    ]
    assert json.loads(refused)["code"] == "invalid"
