"""A sampler that knows what to say to whom, and problems without a family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenth.base.records import Completion, Finish, Problem, Verdict
from tenth.engine.request import SamplingParams
from tenth.rollout.collect import prompt_ids
from tenth.tasks.rewards import one_by_one
from tenth.tokenizer.chat import ChatTemplate
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.train import train_bpe

CUT = " CUT"  # at its end a text was cut off by its length


@dataclass
class TalkingPool:
    """`answers[problem_id]` are the answers to that problem, over and over until there are n of them."""

    tokenizer: Tokenizer
    template: ChatTemplate
    problems: Sequence[Problem]
    answers: Mapping[str, Sequence[str]]
    num_calls: int = 0
    seeds: tuple[int, ...] = ()

    def sample(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[list[Completion]]:
        self.num_calls += 1
        self.seeds = (*self.seeds, params.seed)
        known = {
            tuple(prompt_ids(each, self.tokenizer, template=self.template)): each.problem_id
            for each in self.problems
        }
        groups = []
        for prompt in prompts:
            texts = self.answers[known[tuple(prompt)]]
            groups.append([self._completion(prompt, texts[i % len(texts)]) for i in range(params.n)])
        return groups

    def refresh_weights(self) -> None:
        """Its answers never change."""

    def _completion(self, prompt: Sequence[int], text: str) -> Completion:
        ids = tuple(self.tokenizer.encode(text))
        return Completion(
            prompt_ids=tuple(prompt),
            answer_ids=ids,
            answer_logprobs=tuple(0.0 for _ in ids),
            finish=Finish.LENGTH if text.endswith(CUT) else Finish.STOP,
            text=text,
        )


def make_tokenizer() -> Tokenizer:
    return train_bpe(["first 3+4=7 so the answer is 7, then 首先 所以 答案是"] * 3, vocab_size=330)


def make_problem(number: int, *, task: str = "sums", language: str = "en", **metadata: str) -> Problem:
    """The answer is the number itself."""
    return Problem(
        problem_id=f"p{number}",
        task=task,
        prompt=f"What is {number}?",
        answer=str(number),
        language=language,
        metadata=metadata,
    )


@one_by_one
def check_equal(problem: Problem, text: str) -> Verdict:
    """Right when equal; the answer "crash" breaks the verifier."""
    if text == "crash":
        return Verdict(is_correct=False, error="the verifier crashed")
    return Verdict(is_correct=text == problem.answer, extracted=text)


def zero(thinking: str, answer: object) -> str:
    return f"<think>{thinking}</think><answer>{answer}</answer>"


def r1(thinking: str, answer: object, *, language: str = "en") -> str:
    said = {"en": "The answer is \\boxed{%s}.", "zh": "答案是\\boxed{%s}。"}[language]
    return f"<think>\n{thinking}\n</think>\n{said % answer}"
