"""Suites by likelihood, for a model whose weights are here: LAMBADA's last word, the likeliest option.

Why: a base model answers no questions, but it continues texts. LAMBADA (Paperno et al., arXiv:1606.06031):
accuracy is the share of passages whose last word is, token by token, the likeliest; perplexity is the right
word's. Options (ARC-easy, COPA): the one with the largest log-likelihood; per byte as well, since long ones
are unlikely.
In:  a network, its tokenizer, problems whose prompt is continued.  Out: `Sample` rows.
Not here: questions that are answered in text (evaluate_model.py).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tenth.base.records import Finish, Problem
from tenth.model.transformer import Transformer
from tenth.pipeline.eval_recipe import EvalRecipe
from tenth.pipeline.evaluate_model import Asked, Tell, missing_batches
from tenth.pipeline.sample_log import SampleLog
from tenth.rollout.suite_scores import Sample
from tenth.tasks.choice import CHOICES, LETTERS
from tenth.tasks.suites.suite import AnswerKind
from tenth.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """How likely a continuation is."""

    logprob: float  # natural log, of the whole
    tokens: int
    is_greedy: bool  # every token of it is the likeliest
    prompt_tokens: int


@torch.no_grad()
def continuation_likelihood(
    model: Transformer, tokenizer: Tokenizer, context: str, continuation: str
) -> Likelihood:
    """Of `continuation`, with its leading space, after `context`. A context that is too long loses its
    beginning."""
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    before = bos + tokenizer.encode_plain(context)
    after = _tail(before, bos + tokenizer.encode_plain(context + continuation), tokenizer, continuation)
    room = model.config.max_position_embeddings - len(after)
    before = before[-max(1, room) :]
    ids = torch.tensor(before + after)
    hidden = model(ids[None, :-1])[0, len(before) - 1 :]  # (len(after), D)
    logprobs = model.logits(hidden).float().log_softmax(-1)  # (len(after), V)
    chosen = logprobs.gather(-1, ids[len(before) :, None])
    return Likelihood(
        logprob=float(chosen.double().sum()),
        tokens=len(after),
        is_greedy=bool((logprobs.argmax(-1) == ids[len(before) :]).all()),
        prompt_tokens=len(before),
    )


def _tail(before: list[int], whole: list[int], tokenizer: Tokenizer, continuation: str) -> list[int]:
    """Ids of the continuation: of the whole text where the context's ids are its beginning."""
    if whole[: len(before)] == before and len(whole) > len(before):
        return whole[len(before) :]
    return tokenizer.encode_plain(continuation)


def measure_by_likelihood(asked: Asked, problem: Problem, model: Transformer, tokenizer: Tokenizer) -> Sample:
    """One question, without sampling anything."""
    begin = time.perf_counter()
    options = (
        [problem.answer]
        if asked.kind is AnswerKind.CONTINUATION
        else [str(each) for each in problem.metadata[CHOICES]]
    )
    found = [continuation_likelihood(model, tokenizer, problem.prompt, f" {option}") for option in options]
    if asked.kind is AnswerKind.CONTINUATION:
        extracted, is_correct = None, found[0].is_greedy
        details: dict[str, float | int | bool] = {"logprob": found[0].logprob, "tokens": found[0].tokens}
    else:
        extracted = LETTERS[_largest([each.logprob for each in found])]
        is_correct = extracted == problem.answer
        per_byte = [each.logprob / len(option.encode()) for each, option in zip(found, options, strict=True)]
        details = {"is_correct_per_byte": LETTERS[_largest(per_byte)] == problem.answer}
    seconds = time.perf_counter() - begin
    return Sample(
        suite=asked.name,
        problem_id=problem.problem_id,
        prompt=problem.prompt,
        answer=problem.answer,
        text="",
        reasoning=None,
        extracted=extracted if extracted is not None else ("right" if is_correct else "another word"),
        is_correct=is_correct,
        finish=Finish.STOP,
        prompt_tokens=found[0].prompt_tokens,
        cached_tokens=0,
        completion_tokens=0,
        reasoning_tokens=0,
        seconds=seconds,
        wall_seconds=seconds,
        usd=0.0,
        details=details,
    )


def _largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def measure_suite(
    asked: Asked,
    *,
    network: tuple[Transformer, Tokenizer],
    recipe: EvalRecipe,
    directory: Path,
    tell: Tell,
) -> None:
    """What is missing on disk of a whole suite."""
    log = SampleLog(directory / f"{asked.name}.jsonl")
    batches = missing_batches(asked, recipe, directory=directory)
    done = len(asked.problems) - sum(len(problems) for problems, _ in batches)
    for problems, _ in batches:
        tell(done, len(asked.problems))
        log.append([measure_by_likelihood(asked, problem, *network) for problem in problems])
        done += len(problems)
    tell(done, len(asked.problems))
