"""What the base reads: generated solutions as a web corpus would hold them, some direct, some worked, some
wrong.

Why: R1-Zero can only find out that thinking pays if the base has seen both ways of answering. No document
solves a test or dev question, and none goes beyond a family's `document_levels`.
In:  families, shares, a seed.  Out: an endless iterator of texts; counts of what was written.
Not here: tokenising (data/), the families (tasks/).
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from tenth.base.records import Problem
from tenth.base.seeds import stream_random, stream_seed
from tenth.pipeline.recipe import DocumentsSection, FamilySection
from tenth.tasks.general import preference_pairs
from tenth.tasks.narration import narrate
from tenth.tasks.shape import write_summary
from tenth.tasks.task import Family, Split, Work, split_of
from tenth.tokenizer.chat import Template, render_text, split_thinking

_PAIRS_AT_ONCE = 256


def solution_text(thinking: str | None, answer: str, *, is_tagged: bool = True) -> str:
    """The assistant's side of a document, in R1-Zero's shape or with the bare `answer` behind it."""
    shown = f"<answer>{answer}</answer>" if is_tagged else f" {answer}"
    return shown if thinking is None else f"<think>{thinking}</think>{shown}"


def training_problem(family: Family, levels: tuple[int, int], rng: random.Random) -> Problem:
    """A random problem of the training split, its level drawn evenly."""
    while True:
        problem = family.make(rng, level=rng.randint(*levels))
        if split_of(problem.problem_id) is Split.TRAIN:
            return problem


class Solutions:
    """An endless stream of solution documents that counts what it has written."""

    def __init__(
        self,
        sections: Sequence[FamilySection],
        families: Mapping[str, Family],
        config: DocumentsSection,
        *,
        template: Template,
        seed: int,
    ) -> None:
        self.sections, self.families, self.config, self.template, self.seed = (
            sections,
            families,
            config,
            template,
            seed,
        )
        self.kinds: Counter[str] = Counter()

    def __iter__(self) -> Iterator[str]:
        """Documents as the base reads them."""
        return (
            render_text(question, solution, template=self.template) for question, solution in self.pairs()
        )

    def pairs(self) -> Iterator[tuple[str, str]]:
        """(question, the assistant's side), without end."""
        rng = stream_random(self.seed, "documents")
        while True:
            section = rng.choice(self.sections)
            family = self.families[section.name]
            problem = training_problem(family, section.document_levels, rng)
            yield problem.prompt, self._solution(family, problem, rng)

    def _solution(self, family: Family, problem: Problem, rng: random.Random) -> str:
        config = self.config
        thinks, is_wrong = rng.random() < config.think_share, rng.random() < config.mistake_share
        is_tagged = rng.random() >= config.untagged_share
        kind = Work.MISTAKE if is_wrong else Work.CLEAN
        if thinks and not is_wrong and rng.random() < config.corrected_share:
            kind = Work.CORRECTED
        work = family.work(problem, rng, kind=kind)
        thinking = self._narrated(work.thinking, problem, rng) if thinks else None
        self.kinds[f"{'worked' if thinks else 'direct'}_{kind}{'' if is_tagged else '_untagged'}"] += 1
        is_boxed = not is_tagged and config.boxed_share > 0 and rng.random() < config.boxed_share
        answer = write_summary(work.answer, language=problem.language) if is_boxed else work.answer
        return solution_text(thinking, answer, is_tagged=is_tagged)

    def _narrated(self, thinking: str, problem: Problem, rng: random.Random) -> str:
        # No share, no draw: a recipe without narration keeps the documents that it always had.
        if not self.config.narrated_share or rng.random() >= self.config.narrated_share:
            return thinking
        is_mixed = rng.random() < self.config.mixed_share
        return narrate(thinking, language=problem.language, rng=rng, is_mixed=is_mixed)


def small_talk(*, template: Template, seed: int) -> Iterator[str]:
    """General questions of the training split without end, half of them answered badly."""
    rng = stream_random(seed, "small-talk")
    for turn in count():
        for pair in preference_pairs(seed=stream_seed(seed, "small-talk", turn), count=_PAIRS_AT_ONCE):
            said = split_thinking(rng.choice((pair.chosen, pair.rejected))).answer.strip()
            yield render_text(pair.prompt, f" {said}", template=template)
