"""The section of an R1 run's page that shows how the models grew: rewards, losses, and the hacking monitor.

Why: DeepSeek-R1 (arXiv:2501.12948v2), figures 1, 3 and 6: accuracy and length over all steps, and what
becomes of a verifiable score while a reward model's rises.
In:  `Facts` of an R1 run in any state.  Out: `Html`.
Not here: drawing (growth.py).
"""

from collections.abc import Mapping

from tenth.base.runlog import read_metrics
from tenth.reports.doctor import HACKING_ERRORS, Rows
from tenth.reports.facts import Facts
from tenth.reports.growth import Segment, draw_growth, draw_many
from tenth.reports.markup import Html, element, join
from tenth.reports.panels import BLUE, ORANGE, RED, TEAL, Panel, Unit
from tenth.reports.runs import ZERO
from tenth.reports.sections import figure
from tenth.reports.stages import ALL_RL, REASONING_RL, REWARD_MODELS, Model

_ACCURACY, _FORMAT, _LANGUAGE = "Accuracy", "Closed, ordered tags", "Language consistency"
_LENGTH, _REFLECTION = "Response length, tokens", "Reflection words per 1,000 tokens"
_BEGINS = "preference rewards begin"

_GROWTH = (
    Panel(title=_ACCURACY, lines=(("rewards/accuracy/mean", "", BLUE),), unit=Unit.SHARE),
    Panel(title=_FORMAT, lines=(("rewards/format/mean", "", BLUE),), unit=Unit.SHARE),
    Panel(title=_LANGUAGE, lines=(("rewards/language/mean", "", BLUE),), unit=Unit.SHARE),
    Panel(title=_LENGTH, lines=(("completions/mean_length", "", BLUE),)),
    Panel(title=_REFLECTION, lines=(("reflection_per_1k", "", BLUE),)),
    Panel(title="Entropy, nats per token", lines=(("entropy", "", BLUE),)),
)
# label, stage, the models before and after it
_REINFORCED = (
    ("R1-Zero", ZERO, "base", "zero"),
    ("reasoning (Dev2)", REASONING_RL, "dev1", "dev2"),
    ("all scenarios (R1)", ALL_RL, "dev3", "r1"),
)
_TAUGHT = (("Dev1", "cold-start"), ("Dev3", "general-sft"), ("Student", "student"))
_JUDGED = (
    Panel(
        title="Reward models and what can be verified",
        lines=(
            ("rewards/accuracy/mean", "accuracy, by rule", BLUE),
            ("rewards/truth/mean", "general questions, by rule", TEAL),
            ("rewards/helpful/mean", "helpful, by model", ORANGE),
            ("rewards/safe/mean", "safe, by model", RED),
        ),
        unit=Unit.SHARE,
    ),
    Panel(
        title="Suspicion of reward hacking, standard errors",
        lines=(("reward_hacking", "", RED),),
        reference=(HACKING_ERRORS, "the doctor speaks"),
    ),
)


def growth_section(facts: Facts) -> Html | None:
    """Every reinforcement on one axis, every fine-tuning, the reward models."""
    parts = [_growth(facts), _losses(facts), _monitor(facts)]
    return join([element("h2", "How the models grew"), *parts]) if any(parts) else None


def preference_step(rows: Rows) -> float | None:
    """The first step that a reward model judged."""
    return next((row["step"] for row in rows if "rewards/helpful/mean" in row), None)


def _growth(facts: Facts) -> Html | None:
    segments = []
    for label, stage, before, after in _REINFORCED:
        rows = facts.run.metrics(stage)
        measured = [_measured(facts.models.get(key)) for key in (before, after)]
        segments.append(
            Segment(label=label, rows=rows, before=measured[0], after=measured[1], mark=preference_step(rows))
        )
    drawn = draw_growth(segments, _GROWTH, mark=_BEGINS, columns=3)
    note = (
        "Diamonds: held-out problems, before and after each stage, at the temperature of the evaluation; "
        "lines: what is sampled in training. Between the stages lie the fine-tunings, which begin from the "
        "base. Where preference rewards begin, general questions with short answers are mixed in; R1-Zero is "
        "not rewarded for its language, which is measured on held-out problems only."
    )
    return join([figure(drawn), element("p", note, class_="note")]) if drawn else None


def _losses(facts: Facts) -> Html | None:
    plots: list[tuple[Rows, Panel]] = [
        (
            facts.run.metrics(stage),
            Panel(
                title=f"{label}: loss, nats per token",
                lines=(("loss", "training", BLUE), ("val_loss", "held out", ORANGE)),
            ),
        )
        for label, stage in _TAUGHT
    ]
    stage = facts.run.stage(REWARD_MODELS)
    for kind in ("helpful", "safe") if stage else ():
        rows = list(read_metrics(stage.path / f"train-{kind}" / "metrics.jsonl")) if stage else []
        plots.append((rows, Panel(title=f"Reward model, {kind}: loss", lines=(("loss", "training", TEAL),))))
    drawn = draw_many(plots, name="losses", columns=3)
    return join([element("h3", "Learning from examples"), figure(drawn)]) if drawn else None


def _monitor(facts: Facts) -> Html | None:
    rows = facts.run.metrics(ALL_RL)
    begins = preference_step(rows)
    if begins is None:
        return None
    drawn = draw_many([(rows, panel) for panel in _JUDGED], name="monitor", columns=2, mark=(begins, _BEGINS))
    note = (
        "R1's last reinforcement. A reward model that is deceived shows a rising score over falling accuracy "
        "(the paper's figure 6); the suspicion is the smaller of both slopes in standard errors, "
        "and needs eight judged steps to be computed."
    )
    return join(
        [element("h3", "Is a reward model deceived?"), figure(drawn), element("p", note, class_="note")]
    )


def _measured(model: Model | None) -> Mapping[str, float | None]:
    score = model.score() if model else None
    if score is None:
        return {}
    return {
        _ACCURACY: score.accuracy,
        _FORMAT: score.format,
        _LANGUAGE: score.language,
        _LENGTH: score.mean_tokens,
        _REFLECTION: score.reflection_per_1k,
    }
