"""The model card of an R1-Zero run's models: what the run has recorded so far, and nothing else.

Why: whoever gets the weights should learn from the same directory what they were made of, at what price, and
what they can do. When a model is saved its own cost and scores are not known yet, so the card is written
again once the model has been measured.
In:  a recipe, the directory of the stage that made the model.
Out: a `ModelCard`; README.md.
Not here: the text (checkpoint/model_card.py), the cards of other people's models (tune.py).
"""

from collections.abc import Sequence
from pathlib import Path

from tenth.base.files import read_json, write_whole
from tenth.base.units import show_seconds
from tenth.checkpoint.model_card import ModelCard
from tenth.pipeline.recipe import ZeroRecipe
from tenth.pipeline.stage import done_number

_BEFORE = ("01-documents", "02-base")  # what every model of a run is made from


def zero_card(recipe: ZeroRecipe, stage_dir: Path, *, measured: Path | None = None) -> ModelCard:
    """`stage_dir` made the model; `measured` is the stage that measured it."""
    families = ", ".join(section.name for section in recipe.families)
    texts = tuple(Path(name).name for name in recipe.documents.text_files)
    stages = [
        f"Base: {recipe.model}, pre-trained from random weights on {recipe.pretrain.tokens:,} tokens, seed "
        f"{recipe.seed}."
    ]
    if "zero" in stage_dir.name or "format" in stage_dir.name:
        rl = recipe.rl
        stages.append(
            f"Reinforced by GRPO, rewards by rule (accuracy x {rl.accuracy_weight:g}, format x "
            f"{rl.format_weight:g}): {rl.steps} steps of {rl.prompts_per_step} questions with "
            f"{rl.num_generations} answers each."
        )
    return ModelCard(
        name=f"{recipe.name}, {stage_dir.name.partition('-')[2]}",
        datasets=(
            f"{recipe.documents.tokens:,} tokens of documents, generated solutions of {families} among them",
            *texts,
        ),
        stages=tuple(stages),
        cost=cost_of([*(stage_dir.parent / name for name in _BEFORE), stage_dir], recipe=recipe),
        scores={} if measured is None else scores_of(measured),
    )


def write_zero_card(recipe: ZeroRecipe, stage_dir: Path, *, measured: Path) -> None:
    """Write README.md again, with what is known now."""
    text = zero_card(recipe, stage_dir, measured=measured).to_markdown()
    write_whole(stage_dir / "model" / "README.md", text.encode())


def cost_of(stage_dirs: Sequence[Path], *, recipe: ZeroRecipe) -> str | None:
    """Of everything that made the model; None while one of the stages is under way."""
    records = [path / "DONE.json" for path in dict.fromkeys(stage_dirs)]
    if not all(path.exists() for path in records):
        return None
    seconds = sum(done_number(path.parent, "seconds") for path in records)
    info = read_json(stage_dirs[0].parent / "run.json")
    price = recipe.price_usd_per_hour
    return (
        f"{show_seconds(seconds)} on {info['machine']['cpu']}, {info['threads']} threads: "
        f"${seconds / 3600 * price:.2f} at ${price:g} an hour"
    )


def scores_of(measured: Path) -> dict[str, float]:
    """Accuracy on held-out problems, by how they were asked; sampled with the template, by family too."""
    modes = read_json(measured / "eval.json")["modes"]
    scores = {f"accuracy, {mode}": each["overall"]["accuracy"] for mode, each in modes.items()}
    by_family = modes["sampled"]["families"].items()
    return scores | {f"accuracy, sampled, {family}": each["accuracy"] for family, each in by_family}
