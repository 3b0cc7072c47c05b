"""A finished R1 run by hand: round numbers, clearly nobody's measurement."""

from pathlib import Path
from typing import Any

from synthetic_run import EVIL, RunBuilder, sample, score

FAMILIES = ("chain", "sorting")
# stage that measures -> accuracy, changes of the score
SCORES: dict[str, tuple[float, dict[str, Any]]] = {
    "03-measure-base": (0.30, {"format": 0.5, "language": 0.9, "readable": 0.4}),
    "05-measure-zero": (0.80, {"format": 0.95, "language": 0.85, "readable": 0.7}),
    "08-measure-cold-start": (0.70, {"format": 0.98, "language": 0.99, "readable": 0.9}),
    "10-measure-reasoning-rl": (0.79, {"format": 0.99, "language": 1.0, "readable": 0.97}),
    "13-measure-general-sft": (0.78, {"format": 0.99, "language": 1.0, "readable": 0.98}),
    "16-measure-r1": (0.80, {"format": 0.995, "language": 1.0, "readable": 0.99}),
    "20-measure-student": (0.77, {"format": 0.99, "language": 1.0, "readable": 0.99}),
}
GENERAL = {"08": 0.0, "10": 0.0, "13": 0.60, "16": 0.65, "20": 0.10}
# stage -> seconds; tokens and FLOPs are 1,000 and a million times as many
SECONDS = {
    "01-documents": 10,
    "02-base": 100,
    "04-zero": 50,
    "06-cold-start-data": 4,
    "07-cold-start": 6,
    "09-reasoning-rl": 30,
    "11-rejection-data": 12,
    "12-general-sft": 8,
    "14-reward-models": 5,
    "15-r1": 25,
    "17-student-base": 40,
    "18-student-data": 7,
    "19-student": 13,
    "21-student-control": 20,
    **dict.fromkeys((*SCORES, "22-measure-student-control"), 1),
}
STUDENT_SHAPE = {
    "model_type": "qwen2",
    "vocab_size": 10,
    "hidden_size": 4,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 2,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
}


def r1_evaluation(accuracy: float, **changes: Any) -> dict[str, Any]:
    """An eval.json of two families, one 5 points below the mean and one above."""
    families = {"chain": score(accuracy - 0.05, **changes), "sorting": score(accuracy + 0.05, **changes)}
    modes = {"sampled": {"overall": score(accuracy, **changes), "families": families}}
    return {"settings": {"temperature": 0.6, "top_p": 0.95, "samples": 4, "seed": 7}, "modes": modes}


def rl_rows(steps: int, *, preference_from: int | None = None) -> list[dict[str, float]]:
    """Accuracy rises by a point a step; reward models judge from `preference_from` on."""
    rows = []
    for step in range(steps):
        row = {
            "step": step,
            "reward": 1.0,
            "rewards/accuracy/mean": 0.5 + 0.01 * step,
            "rewards/format/mean": 0.99,
            "rewards/language/mean": 0.99,
            "completions/mean_length": 40.0,
            "reflection_per_1k": 1.0,
            "entropy": 0.3,
            "think_share": 1.0,
            "step_time": 2.0,
        }
        judged = {"rewards/helpful/mean": 0.6, "rewards/safe/mean": 0.9, "rewards/truth/mean": 0.5}
        rows.append(row | (judged if preference_from is not None and step >= preference_from else {}))
    return rows


class R1Builder(RunBuilder):
    """Writes an R1 run, whole or a part of it."""

    def __init__(self, path: Path, *, seed: int = 7, **info: Any) -> None:
        super().__init__(path, seed=seed, **info)
        self.write("recipe.json", {"seed": seed, "flow": "r1", "student": {"control": True}})

    def finish(self, stage: str, **summary: Any) -> None:
        """DONE.json of a stage."""
        seconds = SECONDS[stage]
        value = {"fingerprint": "f", "seconds": seconds, "summary": summary}
        self.write(f"{stage}/DONE.json", value | {"tokens": seconds * 1e3, "flops": seconds * 1e6})

    def measured(self, stage: str, accuracy: float, **changes: Any) -> None:
        """A measuring stage: scores, samples, general questions where the model was asked any."""
        value = r1_evaluation(accuracy, **changes)
        share = GENERAL.get(stage[:2])
        if share is not None:
            value["general"] = {"overall": score(share)}
            self.write_rows(f"{stage}/samples/general.jsonl", [self._sample("general/polite", stage)])
        self.write(f"{stage}/eval.json", value)
        self.write_rows(f"{stage}/samples/sampled.jsonl", [self._sample(name, stage) for name in FAMILIES])
        self.finish(stage)

    def _sample(self, family: str, stage: str) -> dict[str, Any]:
        text = f"<think>\n{EVIL}\n</think>\n{stage} says \\boxed{{5}}."
        return sample(f"id-{family}", family=family, text=text, is_correct=True)

    def data(self, stage: str, *, sampled: int, kept: int, general: int = 0) -> None:
        """A stage that makes a training set: all drops by one rule."""
        row = {"samples": kept, "average_rounds": 1.0, "average_tokens": 50.0}
        row |= {"share_samples": 1.0, "share_tokens": 1.0}
        card = {"domains": {"chain": row}, "total": row, "languages": {"en": kept}}
        self.write(f"{stage}/card.json", card)
        self.write(f"{stage}/dropped.json", {"wrong": {"samples": sampled - kept, "examples": [EVIL]}})
        self.finish(stage, sampled=sampled, kept=kept, general=general, dropped={"wrong": sampled - kept})

    def reinforced(self, stage: str, rows: list[dict[str, float]]) -> None:
        """A reinforcement."""
        self.write_rows(f"{stage}/metrics.jsonl", rows)
        self.finish(stage)

    def taught(self, stage: str) -> None:
        """A fine-tuning."""
        rows = [{"step": i, "loss": 1.0 / (i + 1), "val_loss": 1.1 / (i + 1)} for i in range(5)]
        self.write_rows(f"{stage}/metrics.jsonl", rows)
        self.finish(stage)

    def teacher(self) -> None:
        """Everything up to R1, measured."""
        self.finish("01-documents")
        self.finish("02-base")
        self.reinforced("04-zero", rl_rows(12))
        self.data("06-cold-start-data", sampled=100, kept=40)
        self.taught("07-cold-start")
        self.reinforced("09-reasoning-rl", rl_rows(12))
        self.data("11-rejection-data", sampled=200, kept=90, general=25)
        self.taught("12-general-sft")
        rewards = {"accuracy": 0.9, "longer_wins": 0.6, "shorter_wins": 0.4, "held_out": 100, "training": 900}
        self.write("14-reward-models/scores.json", {"helpful": rewards, "safe": rewards})
        self.finish("14-reward-models")
        self.reinforced("15-r1", rl_rows(12, preference_from=9))
        for stage, (accuracy, changes) in SCORES.items():
            if stage != "20-measure-student":
                self.measured(stage, accuracy, **changes)

    def student(self) -> None:
        """The student, its control, both measured."""
        self.finish("17-student-base")
        self.data("18-student-data", sampled=50, kept=45)
        self.taught("19-student")
        self.write("19-student/model/config.json", STUDENT_SHAPE)
        self.write("15-r1/model/config.json", STUDENT_SHAPE | {"num_hidden_layers": 3})
        accuracy, changes = SCORES["20-measure-student"]
        self.measured("20-measure-student", accuracy, **changes)
        self.reinforced("21-student-control", rl_rows(10))
        self.write(
            "21-student-control/compute.json",
            {
                "distillation": {"training_flops": 13e6, "teacher_sampling_flops": 7e6},
                "control_without_sampling": {"steps": 6, "tokens": 11_000, "flops": 14e6},
                "control_with_sampling": {"steps": 10, "tokens": 20_000, "flops": 20e6},
            },
        )
        value = r1_evaluation(0.5)
        value["modes"]["without_teacher_sampling"] = r1_evaluation(0.4)["modes"]["sampled"]
        self.write("22-measure-student-control/eval.json", value)
        self.finish("22-measure-student-control")


def build_r1_run(path: Path, *, seed: int = 7) -> Path:
    """Every stage, finished."""
    builder = R1Builder(path, seed=seed)
    builder.teacher()
    builder.student()
    return path
