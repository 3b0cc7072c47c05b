"""The reasoning-gym adapter: disjoint splits, and scorers that cannot reach us."""

import importlib.util
import os
import random
from collections.abc import Iterator

import pytest

from tenth.base.errors import ConfigError
from tenth.tasks.generated import FAMILIES
from tenth.tasks.judge import Judge
from tenth.tasks.task import Split, problem, split_of

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None,
    reason="the optional extra reasoning-gym is not installed",
)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as judge:
        yield judge


def gym(name: str, **options):
    from tenth.tasks.reasoning_gym import gym_problems

    return gym_problems(name, **{"split": Split.TRAIN, "count": 20, "seed": 0} | options)


def test_neighbouring_seeds_and_other_splits_share_no_question():
    train = {item.prompt for item in gym("gcd", count=200)}
    test = {item.prompt for item in gym("gcd", split=Split.TEST, count=50)}
    assert len(train) == 200
    assert not train & test
    # in the library itself, seeds 0 and 1 share all but one question in 300
    assert len(train & {item.prompt for item in gym("gcd", count=200, seed=1)}) < 20


def test_the_split_is_the_content_hash_like_everywhere():
    assert all(split_of(item.problem_id) is Split.DEV for item in gym("gcd", split=Split.DEV))


def test_a_range_that_runs_out_and_a_wrong_name_are_one_sentence():
    tiny = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    with pytest.raises(ConfigError, match=r"gave \d+ distinct test problems in"):
        gym("chain_sum", split=Split.TEST, count=100, config=tiny)
    with pytest.raises(ConfigError, match="cannot make 'no_such_task'"):
        gym("no_such_task")


def test_the_librarys_answer_is_right_and_partial_credit_is_wrong(judge):
    item = gym("gcd")[0]
    assert judge.check(item, item.answer).is_correct
    assert judge.check(item, f" {item.answer}. ").is_correct
    # the library gives 1/10 for ten digits that contain the answer
    assert not judge.check(item, "1234567890").is_correct


def test_text_that_its_scorer_executes_cannot_touch_this_process(judge, tmp_path):
    # countdown's scorer evaluates the answer; whoever runs this text leaves its process id behind
    item = gym("countdown", count=1)[0]
    mark = tmp_path / "pid"
    text = f"__import__('os').system('echo $PPID > {mark}')"
    verdict = judge.check(item, text)
    assert not verdict.is_correct
    assert mark.exists()  # it was executed: this is why the process apart is needed
    assert int(mark.read_text()) != os.getpid()


def test_an_answer_that_hangs_its_scorer_is_a_verifier_error(judge):
    from tenth.tasks.reasoning_gym import GymChecker

    item = gym("countdown", count=1)[0]
    checker = GymChecker(deadline_seconds=1.0)
    try:
        verdict = checker.check(item, "9**9**9")
        assert verdict.error is not None
        assert "deadline of 1 s" in verdict.error
        assert not verdict.is_correct
    finally:
        checker.close()


def test_one_judge_judges_problems_of_all_kinds(judge):
    own = FAMILIES["gcd"].make(random.Random(0), level=2)
    assert judge.check(own, own.answer).is_correct
    assert judge.check(problem("book", "1/4+1/4?", "1/2"), "0.5").is_correct
    assert not judge.check(problem("book", "1/4+1/4?", "1/2"), "0.6").is_correct
