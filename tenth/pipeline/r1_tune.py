"""R1's supervised stages: the base fine-tuned on a stage's samples, and the reward models.

DeepSeek-R1 (arXiv:2501.12948v2), sections 3 and 3.1, B.4.1. Both fine-tunings begin from the base: what R1
is, it learned from samples, and not from the weights of the stages that made them.
In:  a run, the stage that holds the samples.  Out: `model/`, or the two reward models.
Not here: the training (supervised.py, reward_model.py).
"""

from pathlib import Path

from tenth.base.seeds import stream_seed
from tenth.checkpoint.reward_dir import RewardKind
from tenth.pipeline.flow import Work
from tenth.pipeline.r1_card import r1_card
from tenth.pipeline.r1_files import file_preferences
from tenth.pipeline.r1_recipe import R1Recipe, SftSection
from tenth.pipeline.reward_model import train_reward_models
from tenth.pipeline.sample_card import SAMPLES
from tenth.pipeline.stage import Outcome
from tenth.pipeline.supervised import supervise
from tenth.tasks.general import preference_pairs, safety_pairs
from tenth.tokenizer.chat import Template


def fine_tune_base(directory: Path, work: Work[R1Recipe], *, samples: str, section: SftSection) -> Outcome:
    """The base, taught by what another stage has collected."""
    return supervise(
        directory,
        model=work.model("base"),
        tokenizer=work.tokenizer(),
        samples=work.dirs[samples] / SAMPLES,
        template=Template.DEEPSEEK,
        section=section,
        seed=stream_seed(work.recipe.seed, samples),
        rules=work.recipe,
        sinks=work.sinks,
        card=r1_card(work, directory),
    )


def require_preferences(work: Work[R1Recipe]) -> None:
    """Preference files that can be read."""
    for kind in RewardKind:
        file_preferences(work.folder, work.recipe.reward_model, kind)


def train_rewards(directory: Path, work: Work[R1Recipe]) -> Outcome:
    """Helpful and safe, each from preferences of its own (3.1)."""
    section, seed = work.recipe.reward_model, stream_seed(work.recipe.seed, "reward-models")
    helpful, safe = (file_preferences(work.folder, section, kind) for kind in RewardKind)
    return train_reward_models(
        directory,
        base=work.dirs["general-sft"] / "model",
        helpful=helpful or preference_pairs(seed=seed, count=section.pairs),
        safe=safe or safety_pairs(seed=seed, count=section.pairs),
        section=section,
        seed=seed,
        rules=work.recipe,
        sinks=work.sinks,
    )
