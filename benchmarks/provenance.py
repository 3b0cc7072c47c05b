"""Who measured, when and with which command: the part that every result file has."""

import dataclasses
import datetime
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import Machine

RESULTS = Path(__file__).parent / "results"


def provenance(module: str, machine: Machine) -> dict[str, Any]:
    """`module`: the last part of benchmarks.MODULE."""
    return {
        "machine": dataclasses.asdict(machine),
        "command": " ".join([f"python -m benchmarks.{module}", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
