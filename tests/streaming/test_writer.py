"""Deltas of all streams are stored together; one that cannot be stored harms only itself."""

import asyncio
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, OperationalError

from durable_agents.delta_writer import DeltaBuffer, DeltaWriter
from durable_agents.lifecycle import Claim
from durable_agents.parts import fold


class Database:
    """Stands for the transaction: notes the groups that it is given, and refuses or loses what it is told to."""

    def __init__(self) -> None:
        self.groups = []
        self.stored = {}
        self.refused, self.lost, self.busy, self.unconfirmed = set(), set(), set(), set()
        self.while_storing = None

    async def run(self, append, batch):
        """Store a group, as `append_deltas` would."""
        self.groups.append([item.claim.row_id for item in batch])
        await asyncio.sleep(0)
        if self.while_storing:
            self.while_storing()
        if self.refused & set(self.groups[-1]):
            raise RuntimeError("This delta cannot be stored.")
        kept = [item for item in batch if item.claim.row_id not in self.lost | self.busy]
        for item in kept:
            rows = self.stored.setdefault(item.claim.row_id, {})
            if item.seq in rows:
                raise IntegrityError("This stream has a delta with this number.")
            rows[item.seq] = list(item.chunks)
        if self.unconfirmed & set(self.groups[-1]):
            raise OperationalError("The connection broke during COMMIT.")
        return {item.claim.row_id for item in kept}, self.lost & set(self.groups[-1])

    def text(self, row_id):
        """Return the text of what is stored of a stream, in order."""
        rows = self.stored[row_id]
        assert sorted(rows) == list(range(len(rows)))
        return "".join(part["text"] for part in fold(chunk for seq in sorted(rows) for chunk in rows[seq]))


@pytest.fixture
def database():
    """Return a database that stores everything."""
    return Database()


@pytest.fixture
def published():
    """Return the list of what browsers were told."""
    return []


@pytest.fixture
def writer(database, published):
    """Return a writer on that database."""
    return DeltaWriter(run=database.run, publish=lambda thread, frame: published.append(frame), flush_seconds=0.01)


@pytest.fixture
def stream(writer):
    """Return a function that opens a stream which has begun to speak."""

    def opened(*texts, throttle_seconds=0.0):
        lost = []
        buffer = DeltaBuffer(
            claim=claim(), message="m", throttle_seconds=throttle_seconds, on_lost=lambda: lost.append(True)
        )
        buffer.lost = lost
        writer.open(buffer)
        buffer.add({"type": "text-start", "id": "t"})
        say(buffer, *texts)
        return buffer

    return opened


def claim() -> Claim:
    """Return a claim on some stream."""
    return Claim(kind="stream", row_id=uuid4(), thread_id=UUID(int=1), fence=1, attempt=1, crashes=0, agent="a")


def say(buffer, *texts):
    """Let a stream say more."""
    for text in texts:
        buffer.add({"type": "text-delta", "id": "t", "delta": text})


async def test_all_streams_share_one_transaction(writer, database, stream):
    """A hundred answers cost what one does."""
    buffers = [stream("Hello") for _ in range(5)]
    await writer.flush()
    assert database.groups == [[buffer.claim.row_id for buffer in buffers]]


async def test_stored_deltas_are_published_in_order(writer, published, stream):
    """As browsers get them, and only what is stored."""
    buffer = stream("One ")
    await writer.flush()
    say(buffer, "two ", "three")
    await writer.flush()
    told = [(frame["type"], frame["seq"], frame["message"]) for frame in published]
    assert told == [("delta", 0, "m"), ("delta", 1, "m")]
    assert published[1]["chunks"] == [{"type": "text-delta", "id": "t", "delta": "two three"}]


async def test_nothing_new_is_no_transaction(writer, database, stream):
    """An idle tick costs nothing."""
    stream("Hello")
    await writer.flush()
    await writer.flush()
    assert len(database.groups) == 1


async def test_text_that_comes_while_a_group_is_stored_is_not_lost(writer, database, stream):
    """The model does not wait for the database."""
    buffer = stream("One ")
    database.while_storing = lambda: say(buffer, "two ")
    await writer.flush()
    database.while_storing = None
    say(buffer, "three")
    await writer.flush()
    assert database.text(buffer.claim.row_id) == "One two three"


async def test_a_delta_that_cannot_be_stored_fails_alone(writer, database, published, stream):
    """Its neighbours are stored, each by itself."""
    good, bad, fine = stream("good"), stream("bad"), stream("fine")
    database.refused = {bad.claim.row_id}
    await writer.flush()
    assert set(database.stored) == {good.claim.row_id, fine.claim.row_id}
    assert {frame["stream"] for frame in published} == {str(good.claim.row_id), str(fine.claim.row_id)}
    assert not bad.lost


async def test_a_delta_that_could_not_be_stored_is_offered_again(writer, database, stream):
    """Nothing is skipped."""
    buffer = stream("One ")
    database.refused = {buffer.claim.row_id}
    await writer.flush()
    database.refused = set()
    say(buffer, "two")
    await writer.flush()
    await writer.flush()
    assert database.text(buffer.claim.row_id) == "One two"


async def test_text_after_a_delta_whose_commit_was_not_confirmed_is_not_lost(writer, database, published, stream):
    """The database has the delta, and refuses it at the second try."""
    buffer = stream("One ")
    database.unconfirmed = {buffer.claim.row_id}
    await writer.flush()
    assert published == []
    database.unconfirmed = set()
    say(buffer, "two")
    await writer.flush()
    await writer.flush()
    assert database.text(buffer.claim.row_id) == "One two"
    sent = [chunk.get("delta") for frame in published for chunk in frame["chunks"]]
    assert sent == [None, "One ", "two"]


@pytest.mark.parametrize(
    ("streams", "took", "pause"),
    [
        (1, 0, 0.05),
        (1, 0.008, 0.042),  # flushes begin 50 ms apart
        (1, 0.1, 0.2),  # a slow database
        (1, 5, 0.35),
        (40, 0.02, 0.12),
        (1000, 0.1, 0.35),
    ],
)
async def test_the_pause_between_flushes_grows_with_streams_and_with_their_time(database, streams, took, pause):
    writer = DeltaWriter(run=database.run, publish=lambda *_: None, flush_seconds=0.05)
    for _ in range(streams):
        writer.open(DeltaBuffer(claim=claim(), message="m", throttle_seconds=0, on_lost=lambda: None))
    assert writer.pause_seconds(took) == pytest.approx(pause)


async def test_a_stream_that_somebody_locks_waits_for_the_next_tick(writer, database, stream):
    """Neither stored nor lost."""
    buffer = stream("One ")
    database.busy = {buffer.claim.row_id}
    await writer.flush()
    assert (database.stored, buffer.lost) == ({}, [])
    database.busy = set()
    await writer.flush()
    assert database.text(buffer.claim.row_id) == "One "


async def test_a_lost_stream_is_told_once_and_forgotten(writer, database, published, stream):
    """Its worker stops; the others go on."""
    gone, kept = stream("gone"), stream("kept")
    database.lost = {gone.claim.row_id}
    await writer.flush()
    say(gone, "more")
    say(kept, " on")
    await writer.flush()
    assert (gone.lost, database.text(kept.claim.row_id)) == ([True], "kept on")
    assert gone.claim.row_id not in database.groups[-1]
    assert {frame["stream"] for frame in published} == {str(kept.claim.row_id)}


async def test_a_closed_stream_is_not_stored(writer, database, stream):
    """The step is committed: its parts say it all."""
    buffer = stream("Hello")
    writer.close(buffer.claim)
    await writer.flush()
    assert database.groups == []


async def test_the_first_delta_is_stored_at_once_and_the_next_after_a_while(writer, database, stream):
    """At most one row per throttle and stream."""
    buffer = stream("One ", throttle_seconds=60)
    await writer.flush()
    say(buffer, "two")
    await writer.flush()
    assert len(database.groups) == 1
    buffer.flushed_at -= 61
    await writer.flush()
    assert database.text(buffer.claim.row_id) == "One two"


async def test_what_cannot_be_stored_is_cleaned_before_it_is_buffered(writer, database, stream):
    """One bad character must not fail the group."""
    buffer = stream("a\x00", "\ud800b")
    await writer.flush()
    assert database.text(buffer.claim.row_id) == "a\ufffd\ufffdb"


async def test_text_of_two_parts_is_not_joined(writer, database, stream):
    """Reasoning and text, or two texts, keep their ids."""
    buffer = stream("a")
    buffer.add({"type": "text-start", "id": "u"})
    buffer.add({"type": "text-delta", "id": "u", "delta": "b"})
    await writer.flush()
    assert [chunk["id"] for chunk in database.stored[buffer.claim.row_id][0]] == ["t", "t", "u", "u"]


async def test_the_writer_runs_by_itself(writer, database, stream):
    """A tick apart, until it is cancelled."""
    buffer, asked = stream("Hello"), asyncio.Event()
    database.while_storing = asked.set
    task = asyncio.create_task(writer.run())
    await asyncio.wait_for(asked.wait(), 5)
    await asyncio.sleep(0)
    task.cancel()
    assert database.text(buffer.claim.row_id) == "Hello"
