"""The stories example as a small result file: rewards before, on the way and after, of one run per seed.

Why: run directories are not committed, their numbers are.
In:  run directories that `examples/reinforce_stories.py` made.
Out: benchmarks/results/stories.json.

python -m benchmarks.stories_table runs/stories runs/stories-2 runs/stories-3
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.provenance import RESULTS

_SAMPLES = 3


def summary(run: Path) -> dict[str, Any]:
    """One run's numbers, and the first stories before and after."""
    facts, recipe = (json.loads((run / f"{name}.json").read_text()) for name in ("run", "recipe"))
    curve = [json.loads(line) for line in (run / "02-rl/metrics.jsonl").read_text().splitlines()]
    return {
        "seed": recipe["seed"],
        "beta": recipe["beta"],
        "commit": facts["commit"],
        "threads": facts["threads"],
        "cpu": facts["machine"]["cpu"],
        "steps": len(curve),
        "seconds_of_rl": round(json.loads((run / "02-rl/clock.json").read_text())["seconds"]),
        "before": _scores(run / "01-measure-before"),
        "after": _scores(run / "03-measure-after"),
        "reward_by_step": [round(step["reward"], 3) for step in curve],
    }


def _scores(stage: Path) -> dict[str, Any]:
    answers = [json.loads(line) for line in (stage / "answers.jsonl").read_text().splitlines()]
    return {
        **json.loads((stage / "scores.json").read_text()),
        "stories": [each["prompt"] + " " + each["text"] for each in answers[:: len(answers) // _SAMPLES]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    result = {
        "command": "python examples/reinforce_stories.py stories260K.bin [--steps N] [seed=N] [beta=B]",
        "runs": [summary(run) for run in parser.parse_args().runs],
    }
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    (RESULTS / "stories.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
