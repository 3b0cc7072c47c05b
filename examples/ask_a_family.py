"""Ask a family for problems, look at worked solutions, and judge what a model might have written.

A family draws questions, solves them step by step, and checks answers by parsing them, never by running them.
"""

import random

from tenth.tasks.generated import FAMILIES
from tenth.tasks.rewards import RewardSet, one_by_one
from tenth.tasks.task import Split, Work, guess_baseline, sample_problems, split_of


def main() -> None:
    """Three test problems of one family, three kinds of working, three answers with their rewards."""
    family = FAMILIES["chain_sum"]
    problems = sample_problems(family, levels=[4, 5, 6], split=Split.TEST, count=3, seed=0)
    for problem in problems:
        print(f"level {problem.level}: {problem.prompt!r} -> {problem.answer!r}")
        # The split follows from the question itself, so training can never meet this one.
        assert split_of(problem.problem_id) is Split.TEST

    question = problems[0]
    rng = random.Random(0)
    for kind in Work:
        work = family.work(question, rng, kind=kind)
        print(f"\n{kind}:\n{work.thinking}\n-> {work.answer}")
        assert family.check(question, work.answer).is_correct == (kind is not Work.MISTAKE)

    # What reinforcement sees: accuracy by the family's checker, format by the tags.
    rewards = RewardSet(one_by_one(family.check), weights={"accuracy": 1.0, "format": 0.2})
    texts = [
        f"<think>adding from the left</think> <answer>{question.answer}</answer>",
        f"<answer>{question.answer}</answer>",
        "<think>it is 7 or 8</think> <answer>7</answer> <answer>8</answer>",
    ]
    print()
    for text, scored in zip(texts, rewards.score([question] * len(texts), texts), strict=True):
        print(f"{scored.reward:.1f}  {text}")

    baseline = guess_baseline(family, levels=[4, 5, 6], split=Split.TEST, seed=0)
    print(f"\nWhoever never reads the question gets {baseline:.1%} right.")


if __name__ == "__main__":
    main()
