"""The parts of a worker process that model steps and tool runs use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from durable_agents.delta_writer import DeltaWriter
from durable_agents.engine.group_commit import Endings
from durable_agents.engine.held import HeldRows
from durable_agents.engine.history_cache import RunHistories
from durable_agents.engine.run_callbacks import CallbackRunner
from durable_agents.engine.runtime import Runtime
from durable_agents.engine.tool_progress import ProgressReports
from durable_agents.engine.tool_slots import ToolSlots


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The parts of a worker that steps and tools use. A test can replace the parts with other objects."""

    runtime: Runtime
    held: HeldRows
    slots: ToolSlots
    writer: DeltaWriter
    endings: Endings
    histories: RunHistories
    callbacks: CallbackRunner
    progress: ProgressReports
    put_off: Callable[[float], None]
    """A function that keeps this process running for some more seconds. After this time, a row is due for a retry."""
