"""Reinforcement on a small model that was really trained: children's stories that keep to what they announce.

The model continues an opening such as "One day, Lily saw a dog, a ball and a tree." It was trained on short
stories, and forgets the dog: few of the three words come back, and hardly a story ends in time.
The reward (story_words.py) pays for both.

    python examples/reinforce_stories.py stories260K.bin          minutes on two cores
    python examples/reinforce_stories.py stories260K.bin --steps 2 --out somewhere

MODEL is llama2.c's stories260K.bin (260 thousand parameters, MIT), with its vocabulary tok512.bin beside it.
This file writes the problems and then types a command that you could type:

    tenth rl MODEL --tasks openings.jsonl --reward story_words.py:three_words ...
"""

import argparse
import json
import os
import random
import shlex
import sys
from pathlib import Path

NAMES = ("Lily", "Tim", "Tom", "Mia", "Ben", "Sara")
WORDS = (
    *("dog", "cat", "ball", "tree", "bird", "park", "box", "toy", "fish", "cake"),
    *("car", "flower", "boat", "book", "hat", "bear", "frog", "duck", "rain", "sun"),
)
NUM_OPENINGS = 2000
SETTINGS = (
    *("prompts_per_step=16", "num_generations=16", "max_completion_length=160"),
    *("beta=0.05", "eval_problems=128", "eval_samples=4"),  # beta: that they stay stories
)


def openings() -> list[str]:
    """Lines of the problem file: distinct openings, each with the words that its story should say again."""
    rng = random.Random(0)
    rows: dict[str, list[str]] = {}
    while len(rows) < NUM_OPENINGS:
        words = rng.sample(WORDS, 3)
        rows[f"One day, {rng.choice(NAMES)} saw a {words[0]}, a {words[1]} and a {words[2]}."] = words
    return [json.dumps({"prompt": prompt, "words": words}) for prompt, words in rows.items()]


def write_openings(path: Path) -> None:
    """The problem file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in openings()), encoding="utf-8")


def main() -> None:
    """Write the problems, then reinforce."""
    parser = argparse.ArgumentParser(description="GRPO on stories260K.")
    parser.add_argument("model", type=Path, nargs="?", help="stories260K.bin; without it problems are shown")
    parser.add_argument("--steps", default="60")
    parser.add_argument("--out", type=Path, default=Path("runs/stories"))
    parser.add_argument("settings", nargs="*", help="more KEY=VALUE for tenth rl, such as seed=2")
    asked = parser.parse_intermixed_args()
    tasks = asked.out.parent / f"{asked.out.name}-openings.jsonl"
    if asked.model is None:
        print("A few problems; name the model to reinforce it.", *openings()[:3], sep="\n")
        return
    write_openings(tasks)
    reward = f"{Path(__file__).with_name('story_words.py')}:three_words"
    command = ["rl", str(asked.model), "--tasks", str(tasks), "--reward", reward, "--out", str(asked.out)]
    command += ["--steps", asked.steps, "--lr", "5e-4", "--plain", *SETTINGS, *asked.settings]
    print("tenth", shlex.join(command), flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "tenth.cli.main", *command])  # it gets Ctrl-C, too


if __name__ == "__main__":
    main()
