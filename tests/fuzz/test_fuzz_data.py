"""Damaged data files: `tenth data` reads them or refuses with a sentence, and what it keeps is sound."""

import gzip
import json
import random
from pathlib import Path

import pytest
from fuzz_edits import edited, random_edits

from tenth.base.errors import TenthError
from tenth.data.check import check
from tenth.data.prepare import PrepareSettings, prepare

ROWS = [
    {"text": "a document of some words, and more of them", "year": 1911},
    {"prompt": "What is 3 + 4?", "completion": "<think>3 + 4 = 7</think>7", "lineage": {"model": "m"}},
    {"problem": "问题是什么？三加四", "answer": "7"},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
    {"prompt": [{"from": "human", "value": "q"}], "chosen": {"role": "assistant", "content": "c"}},
    {"prompt": "q", "chosen": "c", "rejected": [{"role": "assistant", "content": "r"}]},
    {"prompt": "q", "reward_model": {"ground_truth": "x"}, "synthetic": True},
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS * 3).encode()
SOUND = {
    "a.jsonl": LINES,
    "a.json": json.dumps(ROWS).encode(),
    "a.txt": b"one paragraph\n\nanother\n" * 20,
    "a.jsonl.gz": gzip.compress(LINES),
}
TESTS = b'{"question": "a document of some words and more of them all"}\n{"turns": ["hi there"]}\n' * 3


def damage(name: str, number: int, folder: Path) -> None:
    rng = random.Random(f"{name}/{number}")
    path, tests = folder / name, folder / "test.jsonl"
    path.write_bytes(edited(SOUND[name], random_edits(rng)))
    tests.write_bytes(edited(TESTS, random_edits(rng)) if number % 3 == 0 else TESTS)
    out = folder / "out"
    out.mkdir()
    settings = PrepareSettings(validation_share=0.5, fim_rate=0.5)
    try:
        card = prepare(
            out, [path], against=[tests], licences=(), settings=settings, held_out=lambda _item: None
        )
    except TenthError:
        assert not list(out.iterdir())
    else:
        parts = [out / part for part in ("train.jsonl", "validation.jsonl")]
        assert card["rows_read"] == sum(card["dropped"].values()) + sum(
            len([json.loads(line) for line in part.open("rb")]) for part in parts
        )
        again = check(
            [part for part in parts if part.stat().st_size],
            against=[tests],
            settings=PrepareSettings(),
            held_out=lambda _item: None,
        )
        assert again.is_clean, again.problems
    for file in out.iterdir():
        file.unlink()
    out.rmdir()


@pytest.mark.parametrize("name", SOUND)
def test_damaged_data_is_prepared_soundly_or_refused_with_a_sentence(name, tmp_path):
    for number in range(60):
        damage(name, number, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_thousands_of_damaged_files_are_prepared_soundly_or_refused(name, tmp_path):
    for number in range(1000, 4000):
        damage(name, number, tmp_path)
