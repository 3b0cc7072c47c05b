"""R1-Zero's reinforcement: problems of the recipe's families, rules as the only judge.

R1 (arXiv:2501.12948v2, section 2.2): accuracy and format, each by rule; functions of the user's beside them.
In:  a recipe, the base.  Out: the reinforced model in `model/`.
Not here: GRPO itself (reinforce.py).
"""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from tenth.base.records import Problem
from tenth.base.runlog import MetricSink
from tenth.base.seeds import stream_random
from tenth.checkpoint.model_dir import save_model
from tenth.model.transformer import Transformer
from tenth.pipeline.documents import training_problem
from tenth.pipeline.frozen import recipe_families
from tenth.pipeline.recipe import RlSection, ZeroRecipe
from tenth.pipeline.reinforce import Course, DrawProblems, Learner, build_pool, reinforce
from tenth.pipeline.saver import Saver
from tenth.pipeline.stage import Outcome
from tenth.pipeline.zero_card import zero_card
from tenth.tasks.judge import Judge
from tenth.tasks.rewards import BatchReward, RewardSet
from tenth.tasks.user_reward import UserReward
from tenth.tokenizer.tokenizer import Tokenizer


def reinforce_zero(
    directory: Path,
    recipe: ZeroRecipe,
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    sinks: Sequence[MetricSink],
    budget_flops: float | None = None,
    name: str = "model",
) -> Outcome:
    """Train `model` in place; its weights end in the directory's `name`. `budget_flops`: see `reinforce`."""
    with ExitStack() as stack:
        judge = stack.enter_context(Judge())
        functions = user_functions(recipe.rl, stack)
        weights = reward_weights(recipe.rl)
        learner = Learner(
            zero_course(recipe, tokenizer),
            model,
            tokenizer,
            build_pool(model, tokenizer, recipe.rl),
            RewardSet(judge.check_many, weights=weights, functions=functions),
        )
        saver = Saver(directory, recipe)
        outcome = reinforce(directory, learner, saver, sinks=sinks, budget_flops=budget_flops)
    save_model(
        directory / name,
        model,
        tokenizer=tokenizer,
        template=recipe.template,
        card=zero_card(recipe, directory),
        weights=learner.updater.masters.state_dict(),
    )
    return outcome


def reward_weights(rl: RlSection) -> dict[str, float]:
    """Of the rules and of functions of the user's, by name."""
    return {
        "accuracy": rl.accuracy_weight,
        "format": rl.format_weight,
        **({"language": rl.language_weight} if rl.language_weight else {}),
        **{Path(spec).name: weight for spec, weight in rl.reward_functions.items()},
    }


def user_functions(rl: RlSection, stack: ExitStack) -> dict[str, BatchReward]:
    """The user's functions by name, closed with the stack."""
    return {Path(spec).name: stack.enter_context(closing(UserReward(spec))) for spec in rl.reward_functions}


def zero_course(recipe: ZeroRecipe, tokenizer: Tokenizer) -> Course:
    """What R1-Zero is put through."""
    return Course(
        rl=recipe.rl,
        seed=recipe.seed,
        template=recipe.template,
        draw_problems=family_problems(recipe),
        stop_ids=(tokenizer.eos_id,),
    )


def family_problems(recipe: ZeroRecipe, *, stream: str = "rl-problems") -> DrawProblems:
    """Training problems of the recipe's families and files; another `stream`, another draw."""
    families, sections = recipe_families(recipe), recipe.asked

    def draw_problems(step: int, count: int, *, draw: int) -> list[Problem]:
        rng = stream_random(recipe.seed, stream, step, draw)
        # Every family in turn from a random start: a step's reward does not hang on which family it drew.
        offset = rng.randrange(len(sections))
        chosen = [sections[(offset + i) % len(sections)] for i in range(count)]
        return [training_problem(families[section.name], section.levels, rng) for section in chosen]

    return draw_problems
