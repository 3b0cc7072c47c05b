"""A reward as `tenth rl --reward examples/story_words.py:three_words` takes it, with TRL's signature.

A story earns a third for each of its row's three words, and only half of that while it has not ended: whole
words count, wherever they stand. Nothing here needs a model, so anybody can check what a story earned.
"""

import re
from collections.abc import Sequence
from typing import Any

ENDS = (1, 2)  # llama2.c's vocabulary: the beginning of the next story, or the end of the text


def three_words(
    completions: Sequence[str],
    completion_ids: Sequence[Sequence[int]],
    words: Sequence[Sequence[str]],
    **_: Any,
) -> list[float]:
    """One reward per story, from 0 to 1; `words` is a column of the file.

    >>> three_words(["The dog had a ball.", "A dog"], [[9, 1], [9]], [["dog", "ball", "tree"]] * 2)
    [0.6666666666666666, 0.16666666666666666]
    """
    rewards = []
    for story, ids, wanted in zip(completions, completion_ids, words, strict=True):
        written = set(re.findall(r"[a-z]+", story.lower()))
        share = sum(word in written for word in wanted) / len(wanted)
        rewards.append(share if ids and ids[-1] in ENDS else share / 2)
    return rewards


def main() -> None:
    """What a few stories earn whose opening saw a dog, a ball and a tree."""
    for story, last_id in (("The dog sat under the tree.", 2), ("Dog, ball, tree.", 2), ("The dog sat", 9)):
        (reward,) = three_words([story], [[last_id]], [["dog", "ball", "tree"]])
        ending = "it ends" if last_id in ENDS else "it goes on"
        print(f"{reward:.2f}  {story}  ({ending})")


if __name__ == "__main__":
    main()
