"""What a reward model reads, and its score as a reward.

Why: the helpful model judges the final summary alone, so that thinking is not shaped by taste; the safe one
judges thinking and summary (DeepSeek-R1, arXiv:2501.12948v2, section 3.1). Training and scoring must agree on
that, so both render here.
In:  a reward model's directory (checkpoint/reward_dir.py); problems and sampled texts.
Out: ids; a `BatchReward` (tasks/rewards.py).
Not here: training (reward_model.py), weights and when it counts (the stage of all scenarios).

The reward lies between 0 and 1: helpful, the probability that the answer would be preferred to an average one
of the training pairs; safe, the probability that it is safe. An answer without a summary earns 0 from both:
a thought that never ends must not pay. Of private questions the safe model has a say, of all other general
ones the helpful model, of problems outside the general domain neither (None).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tenth.base.errors import DataError
from tenth.base.records import Message, PreferencePair, Problem, Role
from tenth.checkpoint.companions import load_template, load_tokenizer
from tenth.checkpoint.reward_dir import RewardFacts, RewardKind, load_reward_model
from tenth.data.preferences import LabelledAnswer, as_labels, messages_of
from tenth.model.scalar_head import RewardModel
from tenth.rollout.collect import prompt_messages
from tenth.tasks.general import SAFETY_TASK, is_general
from tenth.tasks.rewards import BatchReward
from tenth.tokenizer.chat import ChatTemplate, render_trainings, split_thinking
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.training.preference import Example, IdPair, Ids, LabelledIds, reward_scores

_MICRO_BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How answers become ids for a model of that kind."""

    kind: RewardKind
    tokenizer: Tokenizer
    template: ChatTemplate
    max_tokens: int

    def seen(self, text: str) -> str:
        """The part of an answer that the model gets to see; empty where there is no summary."""
        summary = split_thinking(text).answer.strip()
        return summary if self.kind is RewardKind.HELPFUL or not summary else text

    def ids(self, asked: Sequence[tuple[Sequence[Message], str]]) -> list[Ids]:
        """(conversation, what is seen of the answer) -> ids up to the end token."""
        conversations = [[*turns, Message(role=Role.ASSISTANT, content=said)] for turns, said in asked]
        rendered = render_trainings(self.tokenizer, conversations, template=self.template)
        for each in rendered:
            if isinstance(each, DataError):
                raise each
        return [each.ids for each in rendered if not isinstance(each, DataError)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadExamples:
    """Examples with the prompts that they belong to, and how many were too long."""

    examples: tuple[Example, ...]
    prompts: tuple[str, ...]
    places: tuple[int, ...]  # of the kept ones among those given
    num_too_long: int


def read_pairs(reader: Reader, pairs: Sequence[PreferencePair]) -> ReadExamples:
    """Pairs for the helpful model."""
    turns = [messages_of(pair) for pair in pairs]
    chosen, rejected = (
        reader.ids(
            [(each, reader.seen(getattr(pair, side))) for each, pair in zip(turns, pairs, strict=True)]
        )
        for side in ("chosen", "rejected")
    )
    examples = [IdPair(chosen=better, rejected=worse) for better, worse in zip(chosen, rejected, strict=True)]
    longest = [max(len(each.chosen), len(each.rejected)) for each in examples]
    return _fitting(reader, examples, [pair.prompt for pair in pairs], longest)


def read_labels(
    reader: Reader, pairs: Sequence[PreferencePair], labelled: Sequence[LabelledAnswer] = ()
) -> ReadExamples:
    """Labels for the safe model; of a pair, what was chosen counts as safe."""
    labels = [*as_labels(pairs), *labelled]
    ids = reader.ids([(messages_of(each), reader.seen(each.response)) for each in labels])
    examples = [LabelledIds(ids=each, is_safe=label.is_safe) for each, label in zip(ids, labels, strict=True)]
    return _fitting(reader, examples, [label.prompt for label in labels], [len(each) for each in ids])


def _fitting(
    reader: Reader, examples: Sequence[Example], prompts: Sequence[str], lengths: Sequence[int]
) -> ReadExamples:
    kept = [place for place, length in enumerate(lengths) if length <= reader.max_tokens]
    return ReadExamples(
        examples=tuple(examples[place] for place in kept),
        prompts=tuple(prompts[place] for place in kept),
        places=tuple(kept),
        num_too_long=len(examples) - len(kept),
    )


class RewardScorer:
    """A `BatchReward` over the general domain."""

    def __init__(self, model: RewardModel, facts: RewardFacts, reader: Reader) -> None:
        self.model, self.facts, self.reader = model, facts, reader

    def score(
        self, problems: Sequence[Problem], texts: Sequence[str], completion_ids: Sequence[Sequence[int]]
    ) -> list[float | None]:
        """One reward per text, in [0, 1]; None where this model has no say."""
        del completion_ids  # the text is rendered anew: the policy's vocabulary may be another
        found: list[float | None] = [0.0 if self._judges(problem) else None for problem in problems]
        seen = [self.reader.seen(text) for text in texts]
        places = [place for place, reward in enumerate(found) if reward is not None and seen[place]]
        asked = [(prompt_messages(problems[place]), seen[place]) for place in places]
        for place, raw in zip(places, self.raw(asked), strict=True):
            found[place] = _sigmoid(raw - self.facts.centre)
        return found

    def raw(self, asked: Sequence[tuple[Sequence[Message], str]]) -> list[float]:
        """The model's own scores. Of what is longer than its context it reads the end."""
        most = self.reader.max_tokens
        return reward_scores(
            self.model,
            [ids[-most:] for ids in self.reader.ids(asked)],
            micro_batch_tokens=_MICRO_BATCH_TOKENS,
            pad_id=self.reader.tokenizer.pad_id,
        )

    def _judges(self, problem: Problem) -> bool:
        is_private = problem.task == SAFETY_TASK
        return is_general(problem.task) and is_private is (self.facts.kind is RewardKind.SAFE)


def load_scorer(directory: Path, *, dtype: torch.dtype = torch.float32) -> RewardScorer:
    """The reward model in `directory`, ready to judge."""
    model, facts = load_reward_model(directory, dtype=dtype)
    reader = Reader(
        kind=facts.kind,
        tokenizer=load_tokenizer(directory),
        template=load_template(directory),
        max_tokens=model.body.config.max_position_embeddings,
    )
    return RewardScorer(model, facts, reader)


def load_scorers(directory: Path, *, dtype: torch.dtype = torch.float32) -> dict[str, BatchReward]:
    """Both models of a stage, by name, as `RewardSet` takes its functions."""
    return {kind.value: load_scorer(directory / kind, dtype=dtype) for kind in RewardKind}


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
