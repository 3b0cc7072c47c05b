"""A sampler that says what it was told to say, and problems that need no family."""

from collections.abc import Sequence

from tenth.base.records import Completion, Finish, Problem, Verdict
from tenth.engine.request import SamplingParams
from tenth.tasks.rewards import one_by_one
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.train import train_bpe

WORDS = "What is 1+1? User: Assistant: <think>wait</think><answer>2</answer>"


class ScriptedPool:
    """`texts[i]` are the answers to prompt i; what it was asked is kept."""

    def __init__(self, texts: Sequence[Sequence[str]], tokenizer: Tokenizer, *, finish: Finish = Finish.STOP):
        self.texts, self.tokenizer, self.finish = texts, tokenizer, finish
        self.prompts: list[list[int]] = []
        self.params: SamplingParams | None = None

    def sample(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[list[Completion]]:
        self.prompts, self.params = [list(prompt) for prompt in prompts], params
        return [
            [self._completion(prompt, text) for text in texts]
            for prompt, texts in zip(prompts, self.texts, strict=True)
        ]

    def _completion(self, prompt: Sequence[int], text: str) -> Completion:
        ids = (*self.tokenizer.encode(text), self.tokenizer.eos_id)
        return Completion(
            prompt_ids=tuple(prompt),
            answer_ids=ids,
            answer_logprobs=tuple(-0.1 * i for i in range(len(ids))),
            finish=self.finish,
            text=text,
        )


def make_tokenizer() -> Tokenizer:
    return train_bpe([WORDS] * 3, vocab_size=300)


def make_problem(number: int, *, answer: str = "2", task: str = "sums", level: int = 1) -> Problem:
    return Problem(
        problem_id=f"p{number}", task=task, prompt=f"What is {number}?", answer=answer, level=level
    )


@one_by_one
def check_equal(problem: Problem, text: str) -> Verdict:
    """Right when equal; the text "crash" breaks the verifier."""
    if text == "crash":
        return Verdict(is_correct=False, error="the verifier crashed")
    return Verdict(is_correct=text == problem.answer, extracted=text)
