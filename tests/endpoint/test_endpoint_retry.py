from random import Random

import pytest

from tenth.endpoint.retry import Failure, told_wait_seconds, wait_before_retry
from tenth.endpoint.settings import Patience

PATIENCE = Patience(max_retries=4, first_seconds=1.0, most_seconds=3.0, told_seconds=60.0)


class Half(Random):
    def random(self) -> float:
        return 0.5


def wait(failure: Failure, *, num_failures: int = 1, num_unusable: int = 0) -> float | None:
    return wait_before_retry(
        failure, PATIENCE, num_failures=num_failures, num_unusable=num_unusable, random=Half()
    )


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
def test_what_will_always_be_refused_is_never_asked_again_even_if_the_server_says_so(status):
    assert wait(Failure("", status=status, should_retry=True)) is None


@pytest.mark.parametrize("status", [None, 408, 409, 429, 500, 502, 503, 529])
def test_what_may_pass_is_asked_again(status):
    assert wait(Failure("", status=status)) == 0.75  # 1 s, of which half is drawn: 0.5 + 0.5 * 0.5


@pytest.mark.parametrize("status", [301, 405, 413])
def test_other_refusals_are_not_asked_again_unless_the_server_says_so(status):
    assert wait(Failure("", status=status)) is None
    assert wait(Failure("", status=status, should_retry=True)) is not None


def test_a_server_that_forbids_it_is_not_asked_again():
    assert wait(Failure("", status=429, should_retry=False)) is None


def test_waits_double_up_to_their_bound_and_end():
    waits = [wait(Failure("", status=500), num_failures=number) for number in range(1, 6)]
    assert waits == [0.75, 1.5, 2.25, 2.25, None]  # 1, 2, 3, 3 s, each times 3/4


def test_what_was_perhaps_paid_for_is_lost_twice_at_most():
    lost = Failure("", may_be_billed=True)
    assert wait(lost, num_unusable=1) is not None
    assert wait(lost, num_unusable=2) is None


def test_a_server_that_names_a_time_is_given_a_little_more_and_never_less():
    assert wait(Failure("", status=429, wait_seconds=10.0)) == pytest.approx(10.5)


def test_nobody_waits_for_an_hour():
    assert wait(Failure("", status=429, wait_seconds=3600.0)) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "2", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),  # long ago: at once
        *(({"retry-after": value}, None) for value in ("soon", "nan", "-1", "inf", "")),
        ({}, None),
    ],
)
def test_both_headers_are_understood_and_nonsense_is_none(headers, seconds):
    assert told_wait_seconds(headers) == seconds


def test_jitter_spreads_those_who_failed_together():
    waits = {
        wait_before_retry(
            Failure("", status=500), PATIENCE, num_failures=1, num_unusable=0, random=Random(seed)
        )
        for seed in range(20)
    }
    assert len(waits) == 20
    assert all(each is not None and 0.5 <= each <= 1.0 for each in waits)
