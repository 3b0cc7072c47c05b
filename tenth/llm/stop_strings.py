"""Where an answer has to stop: finds the first stop string in text that arrives in pieces of any size.

Why: a stop string may span several tokens. What could be the beginning of one must not be shown yet, and what
cannot be must not wait.
In:  pieces of text.
Out: the text before the first stop string that is complete; of two complete at once, the longer counts.
How: Aho and Corasick, "Efficient string matching" (1975): one automaton for all strings, one step per
character, so neither long strings nor many of them slow an answer down. Its state is the longest beginning of
a stop string that the text ends with, which is exactly what has to be held back.
Not here: stop ids, which the engine knows.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tenth.base.errors import ConfigError

MAX_STRINGS, MAX_CHARACTERS = 64, 256


@dataclass(slots=True)
class _Node:
    """The text ends with the first `depth` characters of some stop string, and with no longer beginning."""

    depth: int
    next: "dict[str, _Node]" = field(default_factory=dict)
    shorter: "_Node | None" = None  # the next longest beginning that the text ends with
    complete: str | None = None  # the longest stop string that the text ends with


class StopStrings:
    """Stop strings, checked and prepared; shared by all samples of a request. Immutable."""

    def __init__(self, strings: Sequence[str], *, include_stop: bool = False) -> None:
        _check(strings)
        self.include_stop = include_stop  # whether the stop string belongs to the answer
        self._root = _build(strings)

    def watch(self) -> "StopWatch":
        """A watcher for one answer."""
        return StopWatch(self._root, include_stop=self.include_stop)


class StopWatch:
    """Follows one answer."""

    def __init__(self, root: _Node, *, include_stop: bool) -> None:
        self.found: str | None = None  # the stop string that ended the answer
        self._root = self._state = root
        self._include_stop = include_stop
        self._held = ""  # the end of the text, which may be the beginning of a stop string

    def feed(self, text: str) -> str:
        """The text that is certainly part of the answer now; once `found` is set, nothing follows."""
        if self.found is not None:
            return ""
        if not self._root.next:
            return text
        whole = self._held + text
        for end, char in enumerate(text, start=len(self._held) + 1):
            self._state = self._step(self._state, char)
            if self._state.complete is not None:
                self.found, self._held = self._state.complete, ""
                return whole[: end if self._include_stop else end - len(self.found)]
        certain = len(whole) - self._state.depth
        self._held = whole[certain:]
        return whole[:certain]

    def flush(self) -> str:
        """What was held back, once no text will follow."""
        held, self._held = self._held, ""
        return held

    def _step(self, state: _Node, char: str) -> _Node:
        while char not in state.next:
            if state.shorter is None:
                return state
            state = state.shorter
        return state.next[char]


def _check(strings: Sequence[str]) -> None:
    if isinstance(strings, str):
        raise ConfigError(
            f"stop = {strings[:40]!r} is one string; give a list of strings: [{strings[:40]!r}]."
        )
    if len(strings) > MAX_STRINGS:
        raise ConfigError(f"stop has {len(strings)} strings; give at most {MAX_STRINGS}.")
    for each in strings:
        if not isinstance(each, str) or not 1 <= len(each) <= MAX_CHARACTERS:
            size = f"{len(each)} characters" if isinstance(each, str) else f"the type {type(each).__name__}"
            raise ConfigError(f"a stop string has {size}; give strings of 1 to {MAX_CHARACTERS} characters.")


def _build(strings: Sequence[str]) -> _Node:
    root = _Node(0)
    for string in strings:
        node = root
        for char in string:
            node = node.next.setdefault(char, _Node(node.depth + 1))
        node.complete = string
    todo = deque((char, child, root) for char, child in root.next.items())
    while todo:  # parents before children
        char, node, parent = todo.popleft()
        fallback = parent.shorter
        while fallback is not None and char not in fallback.next:
            fallback = fallback.shorter
        node.shorter = root if fallback is None else fallback.next[char]
        node.complete = node.complete or node.shorter.complete
        todo.extend((key, child, node) for key, child in node.next.items())
    return root
