"""Nobody else's things exist: every route and every frame, under three policies, for strangers of every kind.

What is foreign is answered as what does not exist, to the byte but for the id that was asked for, and nothing that is
stored changes. The cases are in ``cases``; a route or a frame without one fails here.
"""

import json
from dataclasses import asdict
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import path

from durable_agents.api.base import AgentsView
from durable_agents.live import frames
from durable_agents.models import Thread
from durable_agents.urls import urlpatterns
from tests.api.calls import ROOT, Api, all_pages, person
from tests.policies.attempts import over_the_websocket, stored
from tests.policies.calling import call, live
from tests.policies.cases import (
    CANARY,
    CASES,
    FRAMES,
    OPEN,
    Case,
    Names,
    belongings,
    frame_gaps,
    gaps,
)

POLICIES = {
    "owner": "durable_agents.policies.OwnerPolicy",
    "organisation": "tests.policies.documented.OrganisationPolicy",
    "session": "tests.policies.documented.SessionPolicy",
}
HIDING = [name for name, case in CASES.items() if case.is_private]
NESTED = [name for name, case in CASES.items() if case.nested]


@pytest.fixture(autouse=True)
def _quiet(bells):
    """Keep the queue out of it."""


class World:
    """An owner, and strangers to them, under one policy."""

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.owner = Api() if policy == "session" else Api(person("ada", last_name="1"))
        self.strangers = self.strangers_of(policy)

    @staticmethod
    def strangers_of(policy: str, suffix: str = "") -> list[Api]:
        """Return somebody else who may have threads under this policy, staff, and a superuser."""
        return [
            Api() if policy == "session" else Api(person(f"eve{suffix}", last_name="2")),
            Api(person(f"staff{suffix}", last_name="2", is_staff=True)),
            Api(person(f"root{suffix}", last_name="2", is_staff=True, is_superuser=True)),
        ]

    def give(self, api: Api, needs: str) -> Names:
        """Make what a case needs for this caller, in the place where threads of theirs are."""
        place = Thread.objects.get(pk=api.post("threads/", {"agent": "tested"}).json()["id"])
        return belongings(needs, owner=place.owner, scope=place.scope)


@pytest.fixture(params=POLICIES)
def world(request, settings, monkeypatch, declare) -> World:
    """Return people under each of the policies."""
    settings.DURABLE_AGENTS = {"POLICY": POLICIES[request.param]}
    organisation = property(lambda user: int(user.last_name) if user.last_name else None)
    monkeypatch.setattr(get_user_model(), "organisation_id", organisation, raising=False)
    declare(public=True)
    return World(request.param)


def told(response: Any, names: Names) -> tuple[Any, ...]:
    """Return all that an answer tells: status, headers and body, without the ids that were asked for."""
    headers = sorted(item for item in response.items() if item[0] != "Content-Length")  # an id may be longer
    return response.status_code, headers, names.taken_from(response.content.decode())


# The cases are whole.


def test_every_route_and_method_has_a_case():
    """Whoever adds one says how it is called with what is somebody else's."""
    assert gaps(urlpatterns, CASES) == []


def test_every_frame_has_a_case():
    """As over REST."""
    assert frame_gaps(frames.FRAMES, FRAMES) == []


class NewView(AgentsView):
    """A view that somebody has just added."""

    def get(self, request: Any, **names: str) -> None:
        """Show something."""

    def put(self, request: Any, **names: str) -> None:
        """Change something."""


def test_a_new_route_without_a_case_is_named():
    """By method, with what to do."""
    route = "threads/<str:thread_id>/secrets/<str:secret_id>/"
    told = gaps([*urlpatterns, path(route, NewView.as_view()), path(route[:-1], NewView.as_view())], CASES)
    missing = [sentence.partition(" has no foreign-owner case: add one to CASES")[0] for sentence in told[:2]]
    assert missing == [f"GET {route[:-1]}", f"PUT {route[:-1]}"]
    assert ["<str:secret_id>, which" in sentence for sentence in told] == [False, False, True, True]


def test_a_new_method_of_a_known_route_is_named():
    """A view that can suddenly be written to."""
    told = gaps([*urlpatterns, path("agents/", NewView.as_view())], CASES)
    assert [sentence.partition(" has")[0] for sentence in told] == ["PUT agents"]


def test_a_case_of_a_route_that_is_gone_is_named():
    """It would protect nothing."""
    [sentence] = gaps(urlpatterns, CASES | {"GET lost": Case()})
    assert sentence.startswith("The case GET lost has no route")


def test_a_case_that_forgets_an_id_of_its_path_is_named():
    """Each thing within a thread is looked for in other threads too."""
    name = next(name for name in NESTED if "tool-calls" in name)
    [sentence] = gaps(urlpatterns, CASES | {name: Case()})
    assert sentence.startswith(f"The case {name} does not say that it names a tool_call_id")


def test_a_new_frame_without_a_case_and_a_case_without_a_frame_are_named():
    """As for routes."""
    missing, stale = frame_gaps([*frames.FRAMES, "burn"], FRAMES | {"lost": Case()})
    assert missing.startswith("The frame 'burn' has no foreign-owner case")
    assert stale.startswith("The case 'lost' has no frame")


# REST.


@pytest.mark.django_db
def test_what_is_somebody_elses_does_not_exist(world):
    """For a stranger, for staff and for a superuser; by the thread's id, and by the name that its owner gave it."""
    for operation in HIDING:
        foreign, unknown = world.give(world.owner, CASES[operation].needs), Names()
        name, other = (letter * len(foreign.thread_id) for letter in "nu")
        Thread.objects.filter(pk=foreign.thread_id).update(client_id=name)
        before = stored()
        for stranger in world.strangers:
            for there, nowhere in ((foreign, unknown), (renamed(foreign, name), renamed(unknown, other))):
                answers = [told(call(stranger, operation, names), names) for names in (there, nowhere)]
                assert answers[0] == answers[1], operation
                is_missing = answers[0][0] == CASES[operation].missing
                assert is_missing or is_closed(world, operation, answers[0]), operation
                assert CANARY not in str(answers), operation
        assert stored() == before, operation
        Thread.objects.filter(pk=foreign.thread_id).update(client_id=None)


def renamed(names: Names, name: str) -> Names:
    """Return the same things under another name of their thread."""
    return Names(**asdict(names) | {"thread_id": name})


def is_closed(world: World, operation: str, answer: Any) -> bool:
    """Whether visitors without an account may not do this at all, whatever it is done to."""
    for_visitors = {"create", "view", "send", "stop", "resume", "add_tool_result", "approve"}
    return world.policy == "session" and action_of(operation) not in for_visitors and answer[0] == 403


def action_of(operation: str) -> str:
    """Return what an operation does, in the words of the policy."""
    method, _, route = operation.partition(" | ")[0].partition(" ")
    [view] = {pattern.callback.cls for pattern in urlpatterns if str(pattern.pattern) == f"{route}/"}
    return str(getattr(view, method.lower()).operation.action)


@pytest.mark.django_db
def test_a_thread_of_an_internal_agent_does_not_exist(world, declare):
    """Not even for its owner, by either name."""
    declare("inside")
    for operation in HIDING:
        own, unknown = world.give(world.owner, CASES[operation].needs), Names()
        Thread.objects.filter(pk=own.thread_id).update(agent="inside", client_id="mine")
        before = stored()
        for names in (own, renamed(own, "mine")):
            answer = told(call(world.owner, operation, names), names)
            assert answer == told(call(world.owner, operation, unknown), unknown), operation
        assert stored() == before, operation
        Thread.objects.filter(pk=own.thread_id).update(client_id=None)


REMOVED = {"agent": "gone", "agent_is_public": True}
"""The columns of a thread whose agent was public and has been removed from the code."""


@pytest.mark.django_db
def test_a_thread_of_a_removed_agent_does_not_exist_for_others(world):
    """Its owner still sees it."""
    for operation in HIDING:
        foreign, unknown = world.give(world.owner, CASES[operation].needs), Names()
        Thread.objects.filter(pk=foreign.thread_id).update(**REMOVED)
        assert world.owner.get(f"threads/{foreign.thread_id}/").json()["title"] in {CANARY, ""}
        before = stored()
        for stranger in world.strangers:
            answers = [told(call(stranger, operation, names), names) for names in (foreign, unknown)]
            assert answers[0] == answers[1], operation
            assert CANARY not in str(answers), operation
            assert foreign.thread_id not in json.dumps(all_pages(stranger, "threads/"))
        assert stored() == before, operation


@pytest.mark.django_db
def test_a_thread_of_a_removed_internal_agent_does_not_exist(world):
    """Not even for its owner."""
    for operation in HIDING:
        own, unknown = world.give(world.owner, CASES[operation].needs), Names()
        Thread.objects.filter(pk=own.thread_id).update(agent="gone", agent_is_public=False)
        before = stored()
        answer = told(call(world.owner, operation, own), own)
        assert answer == told(call(world.owner, operation, unknown), unknown), operation
        assert own.thread_id not in json.dumps(all_pages(world.owner, "threads/"))
        assert stored() == before, operation


@pytest.mark.django_db
def test_things_within_a_thread_belong_to_it(world):
    """Not what is in somebody else's, nor in another one of one's own; nor one's own in theirs."""
    stranger = world.strangers[0]
    for operation in NESTED:
        needs = CASES[operation].needs
        theirs, mine, other = (world.give(api, needs) for api in (world.owner, stranger, stranger))
        before = stored()
        nothing = Names().within(mine)
        unknown = told(call(stranger, operation, nothing), nothing)
        assert unknown[0] == CASES[operation].missing_within or is_closed(world, operation, unknown), operation
        for names in (theirs.within(mine), other.within(mine)):
            assert told(call(stranger, operation, names), names) == unknown, operation
        crossed = mine.within(theirs)
        answer = told(call(stranger, operation, crossed), crossed)
        assert answer[0] == 404 or is_closed(world, operation, answer), operation
        assert stored() == before, operation


@pytest.mark.django_db(transaction=True)
def test_what_lists_or_makes_ones_own_leaves_out_and_leaves_alone_what_is_somebody_elses(world):
    """Also where a body names it."""
    for needs in ("resting", "result", "approve", "attachment", "running"):
        foreign = world.give(world.owner, needs)
    before = ours(stored())
    for operation in [name for name, case in CASES.items() if not case.is_private]:
        for stranger in world.strangers:
            response = call(stranger, operation, foreign)
            is_visitor = world.policy == "session" and stranger is world.strangers[0]
            assert response.status_code < 400 or (is_visitor and operation == "POST ws-ticket"), response.content
            assert CANARY not in response.content.decode(), operation
        assert before - ours(stored()) == set(), operation


def ours(rows: dict[str, list[Any]]) -> set[tuple[str, Any]]:
    """Return the rows of the app's own tables."""
    return {(label, row) for label, of_it in rows.items() if label.startswith("durable_agents.") for row in of_it}


@pytest.mark.django_db
def test_a_message_carries_nobody_elses_file(world):
    """Sent or not yet sent, in a message of one's own: as one that does not exist."""
    sent = world.give(world.owner, "attachment").attachment_id
    unsent = world.owner.client.post(ROOT + "attachments/", {"file": SimpleUploadedFile("a.txt", b"a")}).json()["id"]
    stranger = world.strangers[0]
    mine = world.give(stranger, "resting")
    before = stored()
    answers = set()
    for key in (sent, unsent, Names().attachment_id):
        parts = [{"type": "file", "mediaType": "text/plain", "url": f"/agents/attachments/{key}/"}]
        said = {"id": "m9", "role": "user", "parts": parts}
        asked = [
            stranger.post("threads/", {"agent": "tested", "parts": parts}),
            stranger.post(f"threads/{mine.thread_id}/messages/", {"parts": parts}),
            async_to_sync(live)(stranger, "POST", "chat/", {"id": mine.thread_id, "messages": [said]}),
            async_to_sync(live)(stranger, "POST", "chat/tested/", {"id": "new", "messages": [said]}),
        ]
        answers.add(tuple((response.status_code, response.content.replace(key.encode(), b"")) for response in asked))
    assert len(answers) == 1
    assert {status for status, _ in answers.pop()} == {400}
    assert ours(stored()) == ours(before)


@pytest.mark.django_db
def test_a_file_that_is_not_sent_yet_is_its_senders_alone(world):
    """For somebody who has nothing of their own yet, too: the answer begins no session that another one would not."""
    uploaded = world.owner.client.post(ROOT + "attachments/", {"file": SimpleUploadedFile("a.txt", b"a")}).json()["id"]
    assert call(world.owner, "GET attachments/<str:attachment_id>", Names(attachment_id=uploaded)).content == b"a"
    foreign, unknown = Names(attachment_id=uploaded), Names()
    for number in range(len(world.strangers)):
        answers = []
        for names in (foreign, unknown):
            stranger = World.strangers_of(world.policy, f"{number}{names is foreign}")[number]
            shown = told(call(stranger, "GET attachments/<str:attachment_id>", names), names)
            answers.append((shown, sorted(stranger.client.cookies)))
        assert answers[0] == answers[1]
        assert answers[0][0][0] == 404


@pytest.mark.django_db
@pytest.mark.parametrize("world", ["session"], indirect=True)
def test_no_answer_begins_a_session_that_another_one_would_not(world):
    """A cookie would tell as much as a status."""
    for operation in HIDING:
        foreign = world.give(world.owner, CASES[operation].needs)
        visitors = [Api(), Api()]
        for visitor, names in zip(visitors, (foreign, Names()), strict=True):
            call(visitor, operation, names)
        assert sorted(visitors[0].client.cookies) == sorted(visitors[1].client.cookies), operation


@pytest.mark.django_db
def test_no_list_or_filter_finds_what_is_somebody_elses(world):
    """However one asks for it."""
    foreign = world.give(world.owner, "resting")
    queries = ({}, {"agent": "tested"}, {"status": "completed"}, {"search": CANARY}, {"archived": "false"})
    for stranger in world.strangers:
        for query in queries:
            listed = all_pages(stranger, "threads/", **query)
            assert foreign.thread_id not in json.dumps(listed)
            assert CANARY not in json.dumps(listed)


@pytest.mark.django_db
@pytest.mark.parametrize("world", ["owner", "organisation"], indirect=True)
def test_nobody_is_let_in_without_signing_in(world):
    """With nothing to learn about ids, and nothing done."""
    for operation in CASES.keys() - OPEN:
        foreign, unknown = world.give(world.owner, CASES[operation].needs), Names()
        before = stored()
        answers = [told(call(Api(), operation, names), names) for names in (foreign, unknown)]
        assert answers[0] == answers[1], operation
        assert answers[0][0] in {401, 403}, operation
        assert stored() == before, operation


@pytest.mark.django_db
@pytest.mark.parametrize("operation", OPEN)
def test_the_schema_is_for_everybody(operation):
    """It says what there is, and nothing of anybody's."""
    assert call(Api(), operation, Names()).status_code == 200


# The websocket.


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("stranger", [0, 2], ids=["stranger", "superuser"])
def test_over_the_websocket_what_is_somebody_elses_does_not_exist(world, stranger):
    """Whatever the frame: by the thread's id, and by the name that its owner gave it."""
    for kind, case in FRAMES.items():
        foreign, unknown = world.give(world.owner, case.needs), Names()
        Thread.objects.filter(pk=foreign.thread_id).update(client_id=f"name-of-{kind}")
        asked = (foreign, Names(**asdict(foreign) | {"thread_id": f"name-of-{kind}"}), unknown)
        before = stored()
        answers = over_the_websocket(world.strangers[stranger], kind, *asked)
        if case.is_private:
            shown = {names.taken_from(json.dumps(answer)) for names, answer in zip(asked, answers, strict=True)}
            assert len(shown) == 1, kind
            assert answers[0]["code"] == "thread_not_found", kind
        assert CANARY not in str(answers), kind
        assert stored() == before, kind


@pytest.mark.django_db(transaction=True)
def test_over_the_websocket_a_thread_of_a_removed_agent_does_not_exist_for_others(world):
    """A thread of a removed internal agent not even for its owner."""
    for kind in [kind for kind, case in FRAMES.items() if case.is_private]:
        foreign = world.give(world.owner, FRAMES[kind].needs)
        for api, is_public in ((world.strangers[0], True), (world.owner, False)):
            Thread.objects.filter(pk=foreign.thread_id).update(agent="gone", agent_is_public=is_public)
            before = stored()
            [answer] = over_the_websocket(api, kind, foreign)
            assert answer["code"] == "thread_not_found", kind
            assert stored() == before, kind


@pytest.mark.django_db(transaction=True)
def test_over_the_websocket_things_within_a_thread_belong_to_it(world):
    """A call or a stream of somebody else's is not in one's own thread, nor one's own in theirs."""
    stranger = world.strangers[0]
    for kind in [kind for kind, case in FRAMES.items() if case.nested]:
        theirs, mine = (world.give(api, FRAMES[kind].needs) for api in (world.owner, stranger))
        asked = (Names().within(mine), theirs.within(mine), mine.within(theirs))
        before = stored()
        unknown, within, crossed = over_the_websocket(stranger, kind, *asked)
        assert asked[0].taken_from(json.dumps(unknown)) == asked[1].taken_from(json.dumps(within)), kind
        assert crossed["code"] == "thread_not_found", kind
        assert CANARY not in str([unknown, within, crossed]), kind
        assert stored() == before, kind


@pytest.mark.django_db(transaction=True)
def test_over_the_websocket_a_thread_of_an_internal_agent_does_not_exist(world, declare):
    """Not even for its owner."""
    declare("inside")
    for kind in [kind for kind, case in FRAMES.items() if case.is_private]:
        own = world.give(world.owner, FRAMES[kind].needs)
        Thread.objects.filter(pk=own.thread_id).update(agent="inside")
        before = stored()
        [answer] = over_the_websocket(world.owner, kind, own)
        assert answer["code"] == "thread_not_found", kind
        assert stored() == before, kind
