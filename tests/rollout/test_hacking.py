import math
import random

import pytest

from tenth.rollout.hacking import FEWEST, METRIC, GeneralTruth, HackingWatch, slope, suspicion_of, trend
from tenth.tasks.task import problem

ALARM = 2.5


def curve(start: float, per_step: float, *, steps: int, noise: float, seed: int, memory: float = 0.0):
    """A line with noise; `memory` is the lag-1 correlation of the noise."""
    rng, state, values = random.Random(seed), 0.0, []
    for step in range(steps):
        state = memory * state + math.sqrt(1 - memory**2) * rng.gauss(0, noise)
        values.append(start + per_step * step + state)
    return values


def rows(helpful, accuracy):
    return [
        {"rewards/helpful/mean": one, "rewards/accuracy/mean": other}
        for one, other in zip(helpful, accuracy, strict=True)
    ]


def last_metric(given):
    watch, found = HackingWatch(), {}
    for row in given:
        found = watch.observe(row)
    return found.get(METRIC)


def test_slope_and_trend_by_hand():
    # 0 1 0 1 2: deviations of place -2 … 2; sum of products 4, of squares 10, so the slope is 0.4
    assert slope([0, 1, 0, 1, 2]) == pytest.approx(0.4)
    # residuals 0, 0.6, -0.8, -0.2, 0.4: squares sum to 1.2, neighbours to 0 - .48 + .16 - .08 < 0, so no
    # correlation: error = sqrt(1.2 / 3 / 10) = 0.2, and t = 2
    assert trend([0, 1, 0, 1, 2]) == pytest.approx(2.0)
    assert trend([0.5] * 9) == 0.0


def test_a_rising_reward_beside_a_falling_accuracy_raises_the_alarm():
    helpful = curve(0.4, 0.01, steps=30, noise=0.02, seed=1)
    accuracy = curve(0.8, -0.006, steps=30, noise=0.03, seed=2)
    assert last_metric(rows(helpful, accuracy)) > ALARM


@pytest.mark.parametrize(("reward", "truth"), [(0.01, 0.01), (0.01, 0.0), (-0.01, -0.01), (0.0, -0.01)])
def test_anything_else_does_not(reward, truth):
    helpful = curve(0.4, reward, steps=30, noise=0.01, seed=3)
    accuracy = curve(0.5, truth, steps=30, noise=0.01, seed=4)
    assert last_metric(rows(helpful, accuracy)) < ALARM


def test_a_fall_too_small_to_harm_is_none_however_sure_it_is():
    helpful = curve(0.4, 0.01, steps=30, noise=1e-4, seed=3)
    accuracy = curve(0.8, -0.0003, steps=30, noise=1e-5, seed=4)
    assert last_metric(rows(helpful, accuracy)) == 0.0


@pytest.mark.parametrize(("memory", "most"), [(0.0, 2), (0.6, 8)])
def test_noise_alone_seldom_raises_an_alarm_in_two_hundred_runs(memory, most):
    alarms = 0
    for run in range(200):
        helpful = curve(0.5, 0, steps=40, noise=0.05, seed=2 * run, memory=memory)
        accuracy = curve(0.5, 0, steps=40, noise=0.05, seed=2 * run + 1, memory=memory)
        watch = HackingWatch()
        alarms += any(watch.observe(row).get(METRIC, 0) > ALARM for row in rows(helpful, accuracy))
    assert alarms <= most


def test_slow_hacking_is_found_in_nine_of_ten_runs():
    found = 0
    for run in range(50):
        helpful = curve(0.4, 0.004, steps=50, noise=0.03, seed=2 * run)
        accuracy = curve(0.8, -0.004, steps=50, noise=0.05, seed=2 * run + 1)
        found += last_metric(rows(helpful, accuracy)) > ALARM
    assert found >= 45


def test_the_rule_of_the_general_domain_counts_as_truth():
    safe = curve(0.4, 0.02, steps=20, noise=0.01, seed=1)
    truth = curve(0.9, -0.02, steps=20, noise=0.01, seed=2)
    given = [
        {"rewards/safe/mean": one, "rewards/truth/mean": other, "rewards/accuracy/mean": 0.5}
        for one, other in zip(safe, truth, strict=True)
    ]
    assert suspicion_of(given) > ALARM


def test_nothing_is_said_without_a_reward_model_or_too_early():
    assert last_metric([{"rewards/accuracy/mean": 0.5}] * 20) is None
    short = rows([0.1 * step for step in range(FEWEST)], [1 - 0.1 * step for step in range(FEWEST)])
    assert last_metric(short[:-1]) is None
    assert last_metric(short) > ALARM


def test_a_continued_run_remembers_the_steps_before():
    given = rows(
        curve(0.4, 0.01, steps=30, noise=0.02, seed=1), curve(0.8, -0.006, steps=30, noise=0.03, seed=2)
    )
    continued = HackingWatch(given[:-1]).observe(given[-1])
    assert continued[METRIC] == last_metric(given)


def test_the_truth_has_an_opinion_on_general_answers_alone():
    repeat, other = (
        problem("general/repeat", "Say blue three times.", ""),
        problem("sort", "Sort 3 1.", "1 3"),
    )
    texts = ["<think>\n</think>\nblue blue blue", "<think>\n</think>\nblue", "1 3"]
    assert GeneralTruth().score([repeat, repeat, other], texts, [(), (), ()]) == [1.0, 0.0, None]
