"""TensorBoard event files: a metric sink for people who already have that window open.

Why: it works without torch (`tensorboard` alone writes the files) and never decides anything; curves stay
in metrics.jsonl either way.
In:  the numbers of every step, through `MetricSink`.
Out: event files under <run>/tensorboard/<stage>/; look at them with `tensorboard --logdir <run>/tensorboard`.
Not here: metrics.jsonl (base/runlog.py), the terminal (live.py).
"""

import math
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from tenth.base.runlog import Metrics


class TensorBoardSink:
    """One event file per stage and start; implements `MetricSink`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._writers: dict[str, EventFileWriter] = {}

    def start_stage(self, stage: str, *, total_steps: int) -> None:
        """Nothing yet: the file is opened with the first number, so a finished stage leaves no empty file."""

    def log(self, stage: str, step: int, metrics: Metrics) -> None:
        """Write every finite number of the step."""
        writer = self._writers.get(stage) or self._open(stage, first_step=step)
        values = [
            Summary.Value(tag=name, simple_value=float(value))
            for name, value in metrics.items()
            if math.isfinite(value)
        ]
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def end_stage(self, stage: str) -> None:
        """Close the stage's file."""
        writer = self._writers.pop(stage, None)
        if writer is not None:
            writer.close()

    def close(self) -> None:
        """Close whatever is open; for a run that stops in the middle."""
        for stage in list(self._writers):
            self.end_stage(stage)

    def _open(self, stage: str, *, first_step: int) -> EventFileWriter:
        writer = EventFileWriter(str(self.directory / stage))
        # A continued run repeats the steps after its checkpoint; this event tells TensorBoard to forget them.
        start = SessionLog(status=SessionLog.START)
        writer.add_event(Event(wall_time=time.time(), step=first_step, session_log=start))
        self._writers[stage] = writer
        return writer
