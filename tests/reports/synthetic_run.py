"""A run directory with synthetic numbers: smooth curves and round shares, clearly nobody's measurement."""

import json
import math
from pathlib import Path
from typing import Any

FAMILIES = ("chain", "countdown", "equation", "gcd", "letters", "product", "sorting", "truth")
BASE_ACCURACY = {"sampled": 0.3, "greedy": 0.35, "forced_think": 0.6, "forced_direct": 0.2}
ZERO_ACCURACY = 0.9
EVIL = "<script>alert('x')</script> & <b>bold</b>"


def score(accuracy: float, **changes: Any) -> dict[str, Any]:
    """One SCORE of eval.json."""
    return {
        "accuracy": accuracy,
        "low": max(0.0, accuracy - 0.03),
        "high": min(1.0, accuracy + 0.03),
        "problems": 100,
        "samples": 4,
        "pass_at": {"1": accuracy, "4": min(1.0, accuracy + 0.2)},
        "cons": min(1.0, accuracy + 0.05),
        "truncated": 0.05,
        "think_share": 0.4,
        "format": 0.8,
        "mean_tokens": 30.0,
        "reflection_per_1k": 1.5,
        "verifier_errors": 0.0,
        **changes,
    }


def evaluation(modes: dict[str, float], **changes: Any) -> dict[str, Any]:
    """An eval.json in which family number i is 1 % better than family number i - 1."""
    middle = (len(FAMILIES) - 1) / 2
    levels = {
        mode: {
            family: {
                str(level): {"accuracy": max(0.0, min(1.0, accuracy + (4 - level) * 0.08)), "problems": 25}
                for level in range(2, 8)
            }
            for family in FAMILIES
        }
        for mode, accuracy in modes.items()
    }
    return {
        "settings": {"temperature": 0.6, "top_p": 0.95, "samples": 4, "max_new_tokens": 256, "seed": 7},
        "modes": {
            mode: {
                "overall": score(accuracy),
                "families": {f: score(accuracy + (i - middle) * 0.01) for i, f in enumerate(FAMILIES)},
            }
            for mode, accuracy in modes.items()
        },
        "guess": dict.fromkeys(FAMILIES, 0.1),
        "levels": levels,
        "longest_in_documents": {"chain": 5, "sorting": 6},
        "examples": [],
        **changes,
    }


def sample(problem_id: str, *, family: str, text: str, is_correct: bool) -> dict[str, Any]:
    """One row of samples/<mode>.jsonl."""
    return {
        "problem_id": problem_id,
        "family": family,
        "level": 3,
        "prompt": f"What is 3 + 4 - 2? ({family})",
        "answer": "5",
        "text": text,
        "is_correct": is_correct,
        "finish": "stop",
        "tokens": 20,
    }


def rollout(step: int) -> dict[str, Any]:
    """One stored rollout."""
    return {
        "problem_id": "ab12",
        "task": "chain",
        "level": 3,
        "group_id": 0,
        "prompt_ids": [1, 2],
        "answer_ids": [3, 4],
        "answer_logprobs": [-0.1, -0.2],
        "rewards": {"accuracy": 1.0, "format": 1.0},
        "reward": 1.2,
        "finish": "stop",
        "policy_step": step,
        "prompt": "3 + 4 - 2 = ?",
        "text": f"<think> step {step}: 3 + 4 = 7, 7 - 2 = 5 </think> <answer> 5 </answer>",
        "error": None,
    }


def pretrain_rows(steps: int = 120) -> list[dict[str, float]]:
    """A loss that falls like 1 / sqrt(step)."""
    rows = []
    for step in range(steps):
        loss = 0.5 + 4.0 / math.sqrt(step + 1) + 0.03 * math.sin(step * 1.7)
        row = {
            "step": step,
            "loss": loss,
            "mtp_loss": loss + 0.3,
            "max_vio": 0.2 + 1.5 / (step + 1),
            "peak_share": 0.4,
            "tokens_per_second": 20_000.0,
            "step_time": 0.5,
        }
        rows.append({**row, "val_bpb": 0.4 + 2 / math.sqrt(step + 1)} if step % 20 == 19 else row)
    return rows


def zero_rows(steps: int = 60) -> list[dict[str, float]]:
    """Rewards that rise along a logistic curve."""
    rows = []
    for step in range(steps):
        rise = 1 / (1 + math.exp(-(step - 20) / 6))
        wiggle = 0.03 * math.sin(step * 2.3)
        accuracy = min(1.0, 0.3 + 0.6 * rise + wiggle)
        rows.append(
            {
                "step": step,
                "loss": 0.001 * math.sin(step),
                "reward": accuracy + 0.2 * (0.8 + 0.2 * rise),
                "rewards/accuracy/mean": accuracy,
                "rewards/format/mean": 0.8 + 0.2 * rise,
                "frac_reward_zero_std": 0.2 + 0.5 * rise,
                "completions/mean_length": 30 + 40 * rise + 40 * wiggle,
                "completions/clipped_ratio": 0.02,
                "reflection_per_1k": 1.5 + 3 * rise + 5 * wiggle,
                "think_share": 0.4 + 0.6 * rise,
                "entropy": 0.4 - 0.25 * rise,
                "kl": 0.02 + 0.05 * rise + 0.2 * abs(wiggle),
                "clip_ratio/region_mean": 0.01 + 0.2 * abs(wiggle),
                "step_time": 4.0,
                **{f"accuracy/{f}": min(1.0, accuracy + 0.01 * i) for i, f in enumerate(FAMILIES)},
            }
        )
    return rows


class RunBuilder:
    """Writes one run directory, stage by stage."""

    def __init__(self, path: Path, *, seed: int = 7, **info: Any) -> None:
        self.path = path
        path.mkdir(parents=True)
        value = {
            "format_version": 1,
            "name": path.name,
            "machine": {"cpu": "Synthetic CPU", "threads": 2, "memory_gib": 8.0},
            "torch": "2.13.0",
            "python": "3.11.0",
            "commit": "0123456789abcdef",
            "price_usd_per_hour": 0.1,
            "matmul_peak_flops": {"bf16": 2e11, "fp32": 1e11},
            "created": "2001-02-03T04:05:06Z",
            **info,
        }
        self.write("run.json", value)
        self.write("recipe.json", {"seed": seed, "grpo": {"steps": 60, "group_size": 16}})

    def write(self, name: str, value: Any) -> None:
        """One JSON file."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")

    def write_rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        """One JSON-lines file."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def done(
        self, stage: str, *, seconds: float, tokens: float | None = None, flops: float | None = None
    ) -> None:
        """DONE.json of a stage."""
        value = {"fingerprint": "f", "seconds": seconds, "summary": {}, "tokens": tokens, "flops": flops}
        self.write(f"{stage}/DONE.json", value)

    def documents(self) -> None:
        """Stage 01."""
        corpus = {"documents": 1000, "tokens": 2_000_000, "reflection_per_1k": 1.5, "shares": {"think": 0.33}}
        self.write("01-documents/corpus.json", corpus)
        self.done("01-documents", seconds=10.0)

    def base(self) -> None:
        """Stages 02 and 03."""
        self.write_rows("02-base/metrics.jsonl", pretrain_rows())
        self.done("02-base", seconds=360.0, tokens=6_000_000, flops=3.6e13)
        self.write("03-measure-base/eval.json", evaluation(BASE_ACCURACY))
        rows = [
            sample(f"id{i}", family=f, text=f"<think> {EVIL} </think>{ending}", is_correct=False)
            for i, f in enumerate(FAMILIES)
            for ending in (*4 * [" <answer> 6 </answer>"], " <answer> 6")  # four of five are readable
        ]
        self.write_rows("03-measure-base/samples/sampled.jsonl", rows)
        self.done("03-measure-base", seconds=30.0, tokens=100_000)

    def zero(self) -> None:
        """Stages 04 and 05."""
        self.write_rows("04-zero/metrics.jsonl", zero_rows())
        for step in (0, 10, 20, 30, 40, 50):
            self.write_rows(f"04-zero/rollouts/{step:06d}.jsonl", [rollout(step)])
        (self.path / "04-zero" / "checkpoint" / "step-000060").mkdir(parents=True)
        (self.path / "04-zero" / "checkpoint" / "step-000060" / "weights").write_bytes(b"x" * 1000)
        self.done("04-zero", seconds=240.0, tokens=1_000_000, flops=6e12)
        self.write("05-measure-zero/eval.json", evaluation({"sampled": ZERO_ACCURACY, "greedy": 0.92}))
        text = "<think> 3 + 4 = 7. Wait, let me check: 7 - 2 = 5. </think> <answer> 5 </answer>"
        rows = [sample(f"id{i}", family=f, text=text, is_correct=True) for i, f in enumerate(FAMILIES)]
        self.write_rows("05-measure-zero/samples/sampled.jsonl", rows)
        self.done("05-measure-zero", seconds=20.0, tokens=100_000)

    def controls(self) -> None:
        """Stage 08, as if 06 and 07 had run."""
        self.write("08-measure-controls/eval.json", evaluation({"format_only": 0.4, "sft_steps": 0.65}))
        self.done("08-measure-controls", seconds=20.0)


def build_whole_run(path: Path, *, seed: int = 7) -> Path:
    """Every stage, finished."""
    builder = RunBuilder(path, seed=seed)
    builder.documents()
    builder.base()
    builder.zero()
    builder.controls()
    return path
