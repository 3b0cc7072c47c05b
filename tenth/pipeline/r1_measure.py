"""Measuring the stages of R1: the test set in R1's shape, and small talk beside it.

DeepSeek-R1 (arXiv:2501.12948v2), table 3: every stage is asked the same, sampled.
In:  a run, the stage whose model is asked.
Out: eval.json as R1-Zero's, and its key "general": how often the rule of the general domain is content. That
is no part of the mean accuracy, which is of reasoning. The model's card is written again with its scores.
Not here: R1-Zero's own measuring (zero.py).
"""

from pathlib import Path

from tenth.base.files import read_json, write_json, write_lines
from tenth.model.transformer import Transformer
from tenth.pipeline.distill_stages import EARLY_MODEL
from tenth.pipeline.flow import Work
from tenth.pipeline.measure import Mode, ask, measure, read_answers
from tenth.pipeline.r1_card import write_r1_card
from tenth.pipeline.r1_recipe import R1Recipe
from tenth.pipeline.recipe import RlSection
from tenth.pipeline.stage import Outcome
from tenth.rollout.evaluate import scores_by_family
from tenth.tasks import general
from tenth.tasks.rewards import one_by_one
from tenth.tasks.shape import R1_SHAPE, AnswerShape, r1_format_score
from tenth.tasks.task import Split
from tenth.tokenizer.chat import Template

SAMPLED = Mode(name="sampled", template=Template.DEEPSEEK, shape=R1_SHAPE)
# The rule reads the whole answer.
_SHAPE = AnswerShape(name="general", extract=lambda text: text, format_score=r1_format_score)
_GENERAL = Mode(name="general", template=Template.DEEPSEEK, shape=_SHAPE)
_MOST_GENERAL = 100  # the domain's test split holds a few more


def measure_r1(directory: Path, work: Work[R1Recipe], stage: str) -> Outcome:
    """A model that answers in R1's shape: reasoning, then general questions."""
    model = work.model(stage)
    path = directory / "samples" / f"{_GENERAL.name}.jsonl"
    if not path.exists():
        _ask_general(path, work, model)
    recipe = _with_length_of(work.recipe.all_rl, work.recipe)
    outcome = measure(directory, recipe, [(SAMPLED, model)], work.tokenizer(), sinks=work.sinks)
    scores = scores_by_family(read_answers(path))
    write_json(directory / "eval.json", read_json(directory / "eval.json") | {"general": scores})
    write_r1_card(work, stage, measured=directory)
    return outcome


def measure_control(directory: Path, work: Work[R1Recipe]) -> Outcome:
    """The student's control, which answers in R1-Zero's shape, at both budgets."""
    asks = [
        (Mode(name="sampled"), work.model("student-control")),
        (Mode(name="without_teacher_sampling"), work.model("student-control", part=EARLY_MODEL)),
    ]
    recipe = _with_length_of(work.recipe.student.rl, work.recipe)
    outcome = measure(directory, recipe, asks, work.tokenizer(), sinks=work.sinks)
    write_r1_card(work, "student-control", measured=directory)
    return outcome


def _ask_general(path: Path, work: Work[R1Recipe], model: Transformer) -> None:
    count = min(_MOST_GENERAL, work.recipe.eval.problems_per_family)
    problems = general.general_problems(seed=0, split=Split.TEST, count=count)
    recipe = _with_length_of(work.recipe.all_rl, work.recipe)
    check = one_by_one(general.check)
    groups = ask(recipe, model, work.tokenizer(), _GENERAL, problems=problems, check=check)
    write_lines(path, (row.to_dict() for group in groups for row in group))


def _with_length_of(rl: RlSection, recipe: R1Recipe) -> R1Recipe:
    """A recipe that allows answers as long as that reinforcement does."""
    return recipe.model_copy(update={"rl": rl})
