"""The figure of the README, from a finished run: `python -m benchmarks.figure runs/zero`.

In:  a run directory.  Out: docs/figure.svg: what the base and R1-Zero score, family by family.
"""

import sys
from pathlib import Path

from tenth.base.files import write_whole
from tenth.reports.figures import draw_families
from tenth.reports.runs import MEASURE_BASE, MEASURE_ZERO, read_run

TARGET = Path(__file__).parent.parent / "docs" / "figure.svg"


def main() -> None:
    """Draw the run named on the command line."""
    run = read_run(Path(sys.argv[1]))
    stages = {stage.name: stage for stage in run.stages}
    drawn = draw_families(stages[MEASURE_BASE].evaluation(), stages[MEASURE_ZERO].evaluation())
    if drawn is None:
        sys.exit(f"{sys.argv[1]} has not been measured yet; let the run end.")
    write_whole(TARGET, drawn.encode())
    print(TARGET)


if __name__ == "__main__":
    main()
