"""Scores of a suite, each number worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.records import Finish
from tenth.rollout.suite_scores import Sample, quantile, score_suite, wilson


def sample(problem_id="a", **changes):
    fields = {
        "suite": "s", "problem_id": problem_id, "prompt": "?", "answer": "1", "text": "1", "reasoning": None,
        "extracted": "1", "is_correct": True, "finish": Finish.STOP, "prompt_tokens": 10, "cached_tokens": 4,
        "completion_tokens": 20, "reasoning_tokens": 5, "seconds": 2.0, "wall_seconds": 1.0, "usd": 0.5,
    }  # fmt: skip
    return Sample(**(fields | changes))


WRONG = {"is_correct": False, "extracted": "2"}


def test_pass_at_1_is_the_mean_over_questions_of_their_samples():
    rows = [sample("a"), sample("a", **WRONG), sample("b")]
    assert score_suite("s", rows).accuracy == pytest.approx(0.75)


def test_failed_answers_are_counted_and_are_in_no_mean():
    failed = sample(
        "b", error="HTTP 500", extracted=None, completion_tokens=0, usd=0.0, **{"is_correct": False}
    )
    unknown = sample("c", verifier_error="late", is_correct=False)
    score = score_suite("s", [sample("a"), failed, failed, unknown])
    assert (score.accuracy, score.errors, score.verifier_errors) == (1.0, 2, 1)
    assert (score.problems, score.samples) == (3, 4)
    assert score.completion_tokens == 20
    assert score.unparsed == 0
    assert score.failure == "HTTP 500"


def test_nothing_usable_gives_no_accuracy():
    score = score_suite("s", [sample(error="HTTP 500")])
    assert (score.accuracy, score.low, score.unparsed, score.seconds_median) == (None, None, None, None)


def test_shares_tokens_time_and_money():
    rows = [sample("a"), sample("b", extracted=None, is_correct=False, finish=Finish.LENGTH, seconds=4.0)]
    score = score_suite("s", rows, usd_per_hour=3600.0)
    assert (score.unparsed, score.truncated) == (0.5, 0.5)
    assert (score.prompt_tokens, score.cached_tokens, score.reasoning_tokens) == (10, 4, 5)
    assert (score.seconds_median, score.seconds_p90) == (3.0, 4.0)
    assert score.tokens_per_second == 20  # 40 tokens in 2 seconds of wall time
    assert score.usd == pytest.approx(1.0 + 2.0)  # two API prices, and 2 seconds at a dollar each


def test_the_interval_is_wilsons_where_each_question_is_asked_once():
    # 8 of 10: Wilson's interval as published, e.g. Brown, Cai and DasGupta (2001): 0.490 to 0.943.
    low, high = wilson([1.0] * 8 + [0.0] * 2)
    assert (low, high) == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))


def test_an_accuracy_of_nothing_or_all_still_has_an_interval():
    # Wilson at 0 of 10: z^2 / (n + z^2) = 3.8415 / 13.8415
    assert wilson([0.0] * 10) == (pytest.approx(0.0, abs=1e-12), pytest.approx(0.27754, abs=1e-4))
    assert wilson([1.0] * 10) == (pytest.approx(1 - 0.27754, abs=1e-4), pytest.approx(1.0))


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=60))
def test_an_interval_holds_the_mean_and_lies_between_0_and_1(rates):
    low, high = wilson(rates)
    assert 0 <= low <= sum(rates) / len(rates) + 1e-12
    assert sum(rates) / len(rates) - 1e-12 <= high <= 1


def test_more_samples_per_question_narrow_the_interval_when_questions_agree():
    assert wilson([0.5] * 20)[0] > 0.29  # as 20 coins
    wide, narrow = wilson([0.0, 1.0] * 10), wilson([0.25, 0.75] * 10)
    assert narrow[1] - narrow[0] < wide[1] - wide[0]


def test_a_quantile_is_a_value_that_was_seen():
    assert quantile([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0], 0.9) == 9.0
    assert quantile([1.0], 0.9) == 1.0


def test_instructions_have_four_accuracies():
    rows = [
        sample("a", details={"strict": [True, False], "loose": [True, True]}, is_correct=False),
        sample("b", details={"strict": [True], "loose": [True]}),
    ]
    more = score_suite("ifeval", rows).more
    assert more == pytest.approx(
        {"prompt_strict": 1 / 2, "instruction_strict": 2 / 3, "prompt_loose": 1.0, "instruction_loose": 1.0}
    )


def test_likelihoods_become_perplexities():
    import math

    rows = [
        sample("a", details={"logprob": -math.log(8), "tokens": 3}),
        sample("b", details={"logprob": -math.log(2), "tokens": 1}),
    ]
    more = score_suite("lambada", rows).more
    assert more["perplexity_per_word"] == pytest.approx(4.0)  # the geometric mean of 8 and 2
    assert more["perplexity_per_token"] == pytest.approx(2.0)  # 16 over 4 tokens


def test_a_sample_comes_back_from_its_line():
    whole = sample(details={"strict": [True]}, finish=Finish.LENGTH)
    assert Sample.from_dict(whole.to_dict()) == whole
