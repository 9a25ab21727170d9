"""Random histories of a thread: legal transitions only, and the same ones for the same seed."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from durable_agents import lifecycle
from durable_agents.exceptions import LeaseLostError
from durable_agents.lifecycle import Claim
from durable_agents.models import Thread
from tests.lifecycle.stage import Worker, calling, let_expire, make_due

Move = Callable[[], object]


@dataclass
class History:
    """What has happened to one thread so far; `go_on` lets one more thing happen."""

    thread: Thread
    seed: int
    worker: Worker = field(default_factory=Worker)
    held: list[Claim] = field(default_factory=list)
    messages: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def go_on(self) -> str:
        """Make one transition that is legal now, drawn by chance, and return its name."""
        name, move = self.chance.choice(self._moves())
        try:
            move()
        except LeaseLostError:
            self._forget_lost()
        return name

    def come_to_rest(self) -> None:
        """Bring the run to its end, whatever is open."""
        for _ in range(100):
            self._claim()
            self._forget_lost()
            if not self.held:
                return
            for claim in list(self.held):
                self._answer(claim) if claim.kind == "stream" else self._settle(claim)
        raise AssertionError(f"history {self.seed} does not end")

    def _moves(self) -> list[tuple[str, Move]]:
        moves: list[tuple[str, Move]] = [
            ("send", self._send),
            ("stop", partial(lifecycle.stop_thread, self.thread)),
            ("resume", partial(lifecycle.resume_thread, self.thread)),
            *[("claim", self._claim)] * 6,
        ]
        for claim in self.held:
            moves += self._moves_of_step(claim) if claim.kind == "stream" else self._moves_of_call(claim)
        return moves

    def _moves_of_step(self, claim: Claim) -> list[tuple[str, Move]]:
        return [
            *[("say", partial(self.worker.say, claim, *self._words()))] * 4,
            *[("answer", partial(self._answer, claim))] * 2,
            *[("answer with calls", partial(self._answer, claim, calls=self.chance.randint(1, 3)))] * 4,
            ("retry step", partial(self._then_drop, claim, partial(self.worker.retry, claim))),
            ("fail step", partial(self._then_drop, claim, partial(self.worker.fail, claim))),
            *self._moves_of_any(claim),
        ]

    def _moves_of_call(self, claim: Claim) -> list[tuple[str, Move]]:
        again = partial(lifecycle.retry_tool_call, claim, delay_seconds=60, detail="boom")
        return [
            *[("settle", partial(self._settle, claim))] * 6,
            *[("report", partial(lifecycle.report_progress, claim, self.chance.randrange(1000)))] * 3,
            ("retry call", partial(self._then_drop, claim, again)),
            *self._moves_of_any(claim),
        ]

    def _moves_of_any(self, claim: Claim) -> list[tuple[str, Move]]:
        return [
            ("release", partial(self._then_drop, claim, partial(lifecycle.release, claim))),
            ("reap", partial(self._then_drop, claim, partial(self._reap, claim))),
        ]

    def _send(self) -> None:
        self.messages += 1
        lifecycle.send_message(self.thread, f"Message {self.messages}")

    def _claim(self) -> None:
        make_due(self.thread)
        self.held += self.worker.claim()
        if not self.held:
            self.held += self.worker.claim(suspects=True)

    def _words(self) -> list[str]:
        return [f"{self.chance.randrange(1000)} " for _ in range(self.chance.randint(1, 3))]

    def _answer(self, claim: Claim, *, calls: int = 0) -> None:
        made = [self._call() for _ in range(calls)]
        self._then_drop(claim, partial(self.worker.answer, "".join(self._words()), *made, claim=claim))

    def _call(self) -> lifecycle.NewCall:
        if self.chance.random() < 0.2:
            return calling("nonsense", error="There is no such tool.")
        return calling(self.chance.choice(["plain", "again", "once"]))

    def _settle(self, claim: Claim) -> None:
        self._then_drop(claim, partial(self.worker.settle, self.chance.randrange(1000), claim=claim))

    def _reap(self, claim: Claim) -> None:
        let_expire(claim)
        lifecycle.reap(lambda _: False)

    def _then_drop(self, claim: Claim, move: Move) -> None:
        try:
            move()
        finally:
            self.held.remove(claim)

    def _forget_lost(self) -> None:
        lost = lifecycle.lost_claims(self.held)
        self.held = [claim for claim in self.held if claim.row_id not in lost]
