"""Guessing by looking back: what followed the last few tokens when they came before.

Why: answers quote their prompts and reasoning repeats itself, and a guess that costs no more than a look into
a table pays even when it is seldom right. Prompt-lookup decoding (A. Saxena, 2023): the longest suffix of 2
to 4 tokens that occurred before decides, its latest occurrence first.
In:  tokens, one after the other.  Out: guesses at the next ones.
Not here: whether to guess (speculation.py) and checking the guess (engine.py).
"""

from collections.abc import Sequence

SHORTEST, LONGEST = 2, 4


class PromptLookup:
    """The latest continuation of every run of 2 to 4 tokens of one sequence."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, ...], int] = {}  # run -> position of the token that followed it last
        self._known = 0  # tokens before this position have been entered as continuations

    def guess(self, tokens: Sequence[int], count: int) -> list[int]:
        """Up to `count` tokens that may follow `tokens`, which has only grown since the last call."""
        for position in range(max(self._known, SHORTEST), len(tokens)):
            for length in range(SHORTEST, min(LONGEST, position) + 1):
                self._next[tuple(tokens[position - length : position])] = position
        self._known = len(tokens)
        for length in range(min(LONGEST, len(tokens)), SHORTEST - 1, -1):
            found = self._next.get(tuple(tokens[-length:]))
            if found is not None:
                return list(tokens[found : found + count])
        return []
