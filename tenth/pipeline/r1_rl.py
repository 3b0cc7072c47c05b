"""R1's two reinforcements: of reasoning in one language, and of all scenarios.

DeepSeek-R1 (arXiv:2501.12948v2), sections 3.2.1 and 3.2.2, B.4.
Why: the first makes the cold-started model as able as R1-Zero while it stays readable. The second does so
again behind the general fine-tuning; in its last steps alone general prompts come in, judged by reward
models, since rewards that are learned are deceived when they are optimised for long.
In:  a run, the model to begin from.  Out: the reinforced model in `model/`.
Not here: GRPO itself (reinforce.py), the reward models (reward_model.py).
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random

from tenth.base.errors import ConfigError
from tenth.base.records import Problem
from tenth.base.seeds import stream_random
from tenth.checkpoint.model_dir import save_model
from tenth.checkpoint.reward_dir import RewardKind
from tenth.model.transformer import Transformer
from tenth.pipeline.flow import Work
from tenth.pipeline.r1_card import r1_card
from tenth.pipeline.r1_files import file_preferences, preference_problems
from tenth.pipeline.r1_recipe import AllScenariosSection, R1Recipe
from tenth.pipeline.recipe import RlSection
from tenth.pipeline.reinforce import Course, DrawProblems, Learner, build_pool, reinforce
from tenth.pipeline.reward_scorer import load_scorers
from tenth.pipeline.saver import Saver
from tenth.pipeline.settings import model_config
from tenth.pipeline.stage import Outcome
from tenth.pipeline.zero_rl import family_problems, reward_weights, user_functions
from tenth.rollout.collect import Rewards, prompt_ids
from tenth.rollout.hacking import GeneralTruth
from tenth.tasks.general import SAFETY_TASK, general_problems, is_general
from tenth.tasks.judge import Judge
from tenth.tasks.rewards import RewardSet, Scored
from tenth.tasks.shape import R1_SHAPE
from tenth.tasks.task import Split
from tenth.tokenizer.chat import Template

_GENERAL_PROMPTS = 600  # that a run draws from: fewer than the domain's training split holds


def reinforce_reasoning(directory: Path, work: Work[R1Recipe]) -> Outcome:
    """Dev2: accuracy, format and language consistency, by rule (3.2.1)."""
    section = work.recipe.reasoning_rl
    with ExitStack() as stack:
        rewards = _rule_rewards(section, stack)
        draw = family_problems(work.recipe, stream="reasoning-rl-problems")
        return _reinforce(directory, work, section, work.model("cold-start"), rewards, draw)


def reinforce_all_scenarios(directory: Path, work: Work[R1Recipe]) -> Outcome:
    """R1: the rules throughout, the reward models in the last steps (3.2.2)."""
    section = work.recipe.all_rl
    with ExitStack() as stack:
        rewards = _rule_rewards(section, stack)
        general = _general_rewards(section, work.dirs["reward-models"]) if section.preference_steps else None
        reasoning = family_problems(work.recipe, stream="all-rl-problems")
        draw = all_scenarios(work.recipe, reasoning, general_pools(work))
        mixed = rewards if general is None else ByDomain(rewards, general)
        return _reinforce(directory, work, section, work.model("general-sft"), mixed, draw)


class ByDomain:
    """Reasoning is judged by rules alone, everything general by form, language and reward models."""

    def __init__(self, reasoning: Rewards, general: Rewards) -> None:
        self.reasoning, self.general = reasoning, general

    def score(
        self, problems: Sequence[Problem], texts: Sequence[str], *, completion_ids: Sequence[Sequence[int]]
    ) -> list[Scored]:
        """One `Scored` per text, in order."""
        scored: dict[int, Scored] = {}
        for rewards, is_theirs in ((self.reasoning, False), (self.general, True)):
            places = [i for i, problem in enumerate(problems) if is_general(problem.task) is is_theirs]
            if places:
                found = rewards.score(
                    [problems[i] for i in places],
                    [texts[i] for i in places],
                    completion_ids=[completion_ids[i] for i in places],
                )
                scored |= dict(zip(places, found, strict=True))
        return [scored[i] for i in range(len(problems))]


def general_pools(work: Work[R1Recipe]) -> list[list[Problem]]:
    """The toy prompts; or, with preference files, what those ask, one list for each reward model."""
    toys = general_problems(seed=work.recipe.seed, split=Split.TRAIN, count=_GENERAL_PROMPTS)
    found = {kind: file_preferences(work.folder, work.recipe.reward_model, kind) for kind in RewardKind}
    if not any(found.values()):
        return [toys]
    toys_of = {
        RewardKind.HELPFUL: [each for each in toys if each.task != SAFETY_TASK],
        RewardKind.SAFE: [each for each in toys if each.task == SAFETY_TASK],
    }
    return [
        toys_of[kind] if given is None else _fitting(work, preference_problems(given, kind), kind)
        for kind, given in found.items()
    ]


def all_scenarios(
    recipe: R1Recipe, reasoning: DrawProblems, pools: Sequence[Sequence[Problem]]
) -> DrawProblems:
    """Reasoning problems; in the last steps a share of general ones behind them, of each pool in turn."""
    section = recipe.all_rl

    def draw_problems(step: int, count: int, *, draw: int) -> list[Problem]:
        is_preference = step >= section.steps - section.preference_steps
        num_general = round(section.general_share * count) if is_preference else 0
        rng = stream_random(recipe.seed, "all-rl-general", step, draw)
        return reasoning(step, count - num_general, draw=draw) + _in_turn(pools, num_general, rng)

    return draw_problems


def _in_turn(pools: Sequence[Sequence[Problem]], count: int, rng: Random) -> list[Problem]:
    if len(pools) == 1:
        return rng.sample(pools[0], count)
    first = rng.randrange(len(pools))
    return [rng.choice(pools[(first + place) % len(pools)]) for place in range(count)]


def _fitting(work: Work[R1Recipe], problems: Sequence[Problem], kind: RewardKind) -> list[Problem]:
    """Those that leave room for an answer of the longest kind."""
    tokenizer, longest = work.tokenizer(), work.recipe.all_rl.max_completion_length
    config = model_config(work.recipe, vocab_size=tokenizer.vocab_size)
    room = config.max_position_embeddings - longest
    kept = [each for each in problems if len(prompt_ids(each, tokenizer, template=Template.DEEPSEEK)) <= room]
    if not kept:
        raise ConfigError(
            f"all {len(problems):,} prompts of reward_model.{kind}_files are longer than the {room} tokens "
            f"that model '{work.recipe.model}' leaves beside an answer of {longest}; lower "
            "all_rl.max_completion_length or name other files."
        )
    return kept


def _rule_rewards(section: RlSection, stack: ExitStack) -> RewardSet:
    judge = stack.enter_context(Judge())
    functions = user_functions(section, stack)
    return RewardSet(judge.check_many, weights=reward_weights(section), functions=functions, shape=R1_SHAPE)


def _general_rewards(section: AllScenariosSection, reward_models: Path) -> RewardSet:
    """No accuracy: the rule that knows what a good general answer is only measures, with weight 0."""
    rules = {"format": section.format_weight, "language": section.language_weight}
    weights = rules | {"helpful": section.helpful_weight, "safe": section.safe_weight, "truth": 0.0}
    functions = load_scorers(reward_models) | {"truth": GeneralTruth()}
    with Judge() as judge:  # never asked
        return RewardSet(judge.check_many, weights=weights, functions=functions, shape=R1_SHAPE)


def _reinforce(
    directory: Path,
    work: Work[R1Recipe],
    section: RlSection,
    model: Transformer,
    rewards: Rewards,
    draw_problems: DrawProblems,
) -> Outcome:
    tokenizer = work.tokenizer()
    course = Course(
        rl=section,
        seed=work.recipe.seed,
        template=Template.DEEPSEEK,
        draw_problems=draw_problems,
        stop_ids=(tokenizer.eos_id,),
    )
    learner = Learner(course, model, tokenizer, build_pool(model, tokenizer, section), rewards)
    outcome = reinforce(directory, learner, Saver(directory, work.recipe), sinks=work.sinks)
    save_model(
        directory / "model",
        model,
        tokenizer=tokenizer,
        template=Template.DEEPSEEK,
        card=r1_card(work, directory),
        weights=learner.updater.masters.state_dict(),
    )
    return outcome
