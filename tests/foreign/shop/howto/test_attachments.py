"""docs/howto/attachments.md: files that members send."""

import base64

from tests.foreign.shop.site import Person
from tests.servers.model import ModelUnderTest

DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_a_file_reaches_the_model_and_the_organisation_and_nobody_else(
    model: ModelUnderTest, ada: Person, bob: Person, eve: Person
):
    uploaded = ada.post("attachments/", files={"file": ("dot.png", DOT, "image/png")})
    assert uploaded.status_code == 201, uploaded.text
    file = uploaded.json()
    parts = [{"type": "text", "text": "What is this?"}, {"type": "file", **file}]
    created = ada.post("threads/", {"agent": "support", "parts": parts})
    assert created.status_code == 201, created.text
    thread = created.json()["id"]
    assert ada.answer(thread) == "Hello."
    assert base64.b64encode(DOT).decode() in str(model.requests[-1]["messages"][-1])
    assert bob.http.get(file["url"]).content == DOT
    assert eve.http.get(file["url"]).status_code == 404
