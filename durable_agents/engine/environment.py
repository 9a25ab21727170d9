"""What a model step and a tool run need from the process that runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from durable_agents.delta_writer import DeltaWriter
from durable_agents.engine.endings import Endings
from durable_agents.engine.held import HeldRows
from durable_agents.engine.run_callbacks import CallbackRunner
from durable_agents.engine.run_history import RunHistories
from durable_agents.engine.runtime import Runtime
from durable_agents.engine.tool_progress import ProgressReports


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The parts of a worker, or of a test in its place, that steps and tools use."""

    runtime: Runtime
    held: HeldRows
    writer: DeltaWriter
    endings: Endings
    histories: RunHistories
    callbacks: CallbackRunner
    progress: ProgressReports
    put_off: Callable[[float], None]
    """Called with the seconds until a row that this process has put off is due again."""
