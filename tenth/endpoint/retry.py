"""What may be asked again, and when: decided from the failure alone.

Why: asking again too soon gets one banned, asking again in vain costs money. The table of statuses is what
OpenAI's own client does, except that an empty account (402) ends everything.
In:  a `Failure`.  Out: whether, and after how many seconds. Pure: no clock but the one in a date header.
"""

import datetime
import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from random import Random

from tenth.endpoint.settings import Patience

NEVER = frozenset({400, 401, 402, 403, 404, 422})  # the same request will always be refused
HOPELESS = frozenset({401, 402, 403, 404})  # and so will every other one
_AGAIN = frozenset({408, 409, 429})
MOST_UNUSABLE = 2  # times that an answer may be lost that was perhaps paid for


class Failure(Exception):  # noqa: N818  it goes on where an error would end
    """One request came to nothing. Its message continues a sentence: "the endpoint ..."."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,  # None: no whole answer of HTTP came
        wait_seconds: float | None = None,  # the server asked for that
        should_retry: bool | None = None,  # the server said so
        may_be_billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.wait_seconds = status, wait_seconds
        self.should_retry, self.may_be_billed = should_retry, may_be_billed


def wait_before_retry(
    failure: Failure, patience: Patience, *, num_failures: int, num_unusable: int, random: Random
) -> float | None:
    """Seconds to wait before asking again, or None: it is no use."""
    is_over = num_failures > patience.max_retries or num_unusable >= MOST_UNUSABLE
    if is_over or not _may_pass(failure):
        return None
    if failure.wait_seconds is not None:
        is_bearable = failure.wait_seconds <= patience.told_seconds
        # A little later than told, or all who were told the same come back in one moment.
        return failure.wait_seconds * (1 + 0.1 * random.random()) if is_bearable else None
    doubled = patience.first_seconds * 2.0 ** min(num_failures - 1, 32)
    return min(doubled, patience.most_seconds) * (0.5 + 0.5 * random.random())


def _may_pass(failure: Failure) -> bool:
    if failure.status is None:
        return True
    if failure.status in NEVER:
        return False
    if failure.should_retry is not None:
        return failure.should_retry
    return failure.status in _AGAIN or failure.status >= 500


def told_wait_seconds(headers: Mapping[str, str]) -> float | None:
    """What `retry-after-ms` or `Retry-After` (seconds or a date, RFC 9110, section 10.2.3) asks for."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < math.inf:
            return seconds
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
        return max((date - datetime.datetime.now(date.tzinfo)).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
