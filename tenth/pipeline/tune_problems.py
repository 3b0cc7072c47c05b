"""Problems of somebody's file: what is held out, what a step trains on, what is rewarded.

Why: what is wrong with a file, or does not fit into the model's context, should be said before a weight is
read.
In:  a problem file, rewards as the command line names them.
Out: a `ProblemSplit`; a function that draws a step's problems; weights of rewards.
Not here: reading rows (tasks/problem_files.py), which are held out (tune_draw.py), sampling (rollout/).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenth.base.errors import ConfigError, DataError
from tenth.base.records import Problem
from tenth.base.seeds import stream_random
from tenth.pipeline.reinforce import DrawProblems
from tenth.pipeline.tune_draw import hold_out, shuffled_places
from tenth.rollout.collect import prompt_ids
from tenth.tasks.problem_files import read_problems, read_prompts
from tenth.tasks.rewards import BUILT_IN
from tenth.tokenizer.chat import ChatTemplate
from tenth.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSplit:
    """No prompt is on both sides."""

    training: tuple[Problem, ...]
    held_out: tuple[Problem, ...]

    @property
    def has_answers(self) -> bool:
        """Whether there is something to be accurate about."""
        return bool(self.training[0].answer)


def read_tasks(path: Path, *, has_rewards: bool) -> list[Problem]:
    """The file's problems: all with an answer, or, where somebody else rewards, none."""
    problems = read_prompts(path) if has_rewards else read_problems(path)
    num_answers = sum(bool(problem.answer) for problem in problems)
    if 0 < num_answers < len(problems):
        raise DataError(
            f"{path}: {num_answers} of {len(problems)} rows have an answer; give one to the others or take "
            "the column out."
        )
    return problems


def require_room(
    problems: Sequence[Problem],
    tokenizer: Tokenizer,
    *,
    template: ChatTemplate,
    answer_tokens: int,
    context: int,
) -> list[Problem]:
    """The problems whose prompt leaves room for an answer; a ConfigError where none does."""
    lengths = [_length(problem, tokenizer, template=template) for problem in problems]
    fitting = [
        problem
        for problem, length in zip(problems, lengths, strict=True)
        if 0 < length <= context - answer_tokens
    ]
    if not fitting:
        raise ConfigError(
            f"none of {len(problems)} prompts fits: the shortest has {min(lengths)} tokens, and with "
            f"max_completion_length = {answer_tokens} that is more than the model's context of {context}; "
            "lower max_completion_length or shorten the prompts."
        )
    return fitting


def _length(problem: Problem, tokenizer: Tokenizer, *, template: ChatTemplate) -> int:
    try:
        return len(prompt_ids(problem, tokenizer, template=template))
    except DataError as error:
        raise DataError(f"the prompt '{problem.prompt[:60]}' cannot be asked: {error}") from error


def split_problems(problems: Sequence[Problem], *, most: int, source: Path) -> ProblemSplit:
    """Hold out `most` prompts, or a tenth if that is less; which ones follows from their texts alone."""
    prompts = hold_out((problem.prompt for problem in problems), most=most, source=source)
    first_of = {problem.prompt: problem for problem in reversed(problems)}
    chosen = frozenset(prompts)
    return ProblemSplit(
        training=tuple(problem for problem in problems if problem.prompt not in chosen),
        held_out=tuple(first_of[prompt] for prompt in prompts),
    )


def shuffled_problems(problems: Sequence[Problem], *, seed: int) -> DrawProblems:
    """Every problem once before any comes again; each pass in another order."""
    places_of = shuffled_places(len(problems), seed=seed, stream="rl-order")

    def draw_problems(step: int, count: int, *, draw: int) -> list[Problem]:
        if draw:  # extra ones in place of groups that taught nothing; the next steps' turn is not theirs
            return stream_random(seed, "rl-problems", step, draw).choices(problems, k=count)
        return [problems[place] for place in places_of(step, count)]

    return draw_problems


def parse_rewards(specs: Iterable[str]) -> dict[str, float]:
    """ "file.py:function=0.5" -> {"file.py:function": 0.5}; the weight is 1 where none is given.

    >>> parse_rewards(["a.py:short", "a.py:kind=0.5"])
    {'a.py:short': 1.0, 'a.py:kind': 0.5}
    """
    weights: dict[str, float] = {}
    for text in specs:
        head, _, tail = text.rpartition("=")
        spec, number = (head, tail) if head and ":" not in tail else (text, "1")
        if spec in weights:
            raise ConfigError(f"reward '{spec}' is given twice; give it once, with a weight like {spec}=2.")
        try:
            weights[spec] = float(number)
        except ValueError as error:
            raise ConfigError(
                f"reward '{text}': the weight '{number}' is not a number; write it like {spec}=0.5."
            ) from error
    return weights


def reward_names(specs: Iterable[str]) -> Mapping[str, str]:
    """spec -> what metrics call it: the function, or file and function where that would be ambiguous."""
    functions = {spec: spec.rpartition(":")[2] for spec in specs}
    taken = [*functions.values(), *BUILT_IN]
    return {spec: name if taken.count(name) == 1 else Path(spec).name for spec, name in functions.items()}
