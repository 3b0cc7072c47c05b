"""`tenth data prepare`: a user's files -> train.jsonl, validation.jsonl, dropped.jsonl and a data card.

Why: what a model was trained on decides what its test scores mean, so repeats, test questions and leaks go
before training, and the card says what went and why.
In:  files, evaluation files, `PrepareSettings`.
Out: five files in an empty directory that the caller makes whole (checkpoint/whole_dir.py).
The split follows from content alone: rows with the same prompt and near-duplicates share their side.
Not here: what is judged (survey.py), how the card reads (card.py).
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tenth.base.config import Section, dump_recipe
from tenth.base.errors import ConfigError, DataError
from tenth.base.files import file_hash, write_json, write_whole
from tenth.data.card import Part, describe, write_card_text
from tenth.data.decontamination import read_tests
from tenth.data.fill_in_middle import cut_document
from tenth.data.survey import HeldOut, Survey, sides_of, survey
from tenth.data.user_rows import Item, Kind
from tenth.tokenizer.special import FIM_BEGIN, FIM_END, FIM_HOLE
from tenth.tokenizer.tokenizer import Tokenizer

FILES = ("train.jsonl", "validation.jsonl", "dropped.jsonl", "card.json", "card.md")


class PrepareSettings(Section):
    """What `key=value` may set."""

    validation_share: float = 0.01  # of the clusters, about
    near_threshold: float = 0.8  # Jaccard similarity of runs of five words; 1: equal but for punctuation
    min_characters: int = 1
    max_characters: int = 16_777_216
    solutions: bool = False  # decontaminate against the tests' reference solutions, too
    ignore: str = ""  # words that do not count as a test's: a template that all prompts share
    fim_rate: float = 0.0  # share of training documents written prefix, suffix, middle; DeepSeek-V3: 0.1
    seed: int = 0  # of the places where those are cut; nothing else is drawn
    tokenizer: str = ""  # a model directory or vocabulary, to count tokens

    def model_post_init(self, _context: Any) -> None:
        """Refuse what cannot be meant."""
        limits = (
            ("validation_share", 0 <= self.validation_share < 1, "from 0 to below 1, such as 0.01"),
            ("near_threshold", 0.5 <= self.near_threshold <= 1, "from 0.5 to 1, such as 0.8"),
            ("min_characters", 1 <= self.min_characters <= self.max_characters, "from 1 to max_characters"),
            ("fim_rate", 0 <= self.fim_rate <= 1, "from 0 to 1, such as 0.1"),
        )
        for name, is_right, remedy in limits:
            if not is_right:
                raise ConfigError(f"{name} = {getattr(self, name)}; set it {remedy}.")


def prepare(
    directory: Path,
    paths: Sequence[Path],
    *,
    against: Sequence[Path],
    licences: Sequence[str],
    settings: PrepareSettings,
    held_out: HeldOut,
) -> dict[str, Any]:
    """Fill an empty directory; the card is returned. `licences`: one for all files, one for each, or none."""
    if len(licences) not in (0, 1, len(paths)):
        raise ConfigError(
            f"{len(licences)} licences for {len(paths)} files; give one for all, or one for each in order."
        )
    tokenizer = Tokenizer.load(Path(settings.tokenizer)) if settings.tokenizer else None
    tests = read_tests(against, with_solutions=settings.solutions, ignore=settings.ignore)
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        found = survey(
            paths,
            folder=Path(folder),
            tests=tests,
            threshold=settings.near_threshold,
            lengths=(settings.min_characters, settings.max_characters),
            held_out=held_out,
        )
        _require_rows(found)
        parts = _write_parts(directory, found, settings=settings, tokenizer=tokenizer)
        found.drops.path.replace(directory / "dropped.jsonl")
        found.store.close()
    card = describe(
        found, tests, settings=dump_recipe(settings), licences=_for_each(licences, paths), parts=parts
    )
    card["files"] = {name: file_hash(directory / name) for name in FILES[:3]}
    write_json(directory / "card.json", card)
    write_whole(directory / "card.md", write_card_text(card).encode())
    return card


def _require_rows(found: Survey) -> None:
    if found.kept:
        return
    counts = ", ".join(f"{rule} {count}" for rule, count in found.drops.by_rule().items())
    rule = found.drops.counts.most_common(1)[0][0]
    example = found.drops.examples[rule][0]
    raise DataError(
        f"none of the {found.drops.total()} rows is left (dropped: {counts}), such as "
        f"{example.place}: {rule}, {example.detail}; nothing was written; "
        "mend the rows or the settings."
    )


def _write_parts(
    directory: Path, found: Survey, *, settings: PrepareSettings, tokenizer: Tokenizer | None
) -> dict[str, Part]:
    is_held_out = sides_of(found, share=settings.validation_share)
    parts = {"train": Part(), "validation": Part()}
    with (
        (directory / "train.jsonl").open("w", encoding="utf-8") as train,
        (directory / "validation.jsonl").open("w", encoding="utf-8") as validation,
    ):
        for number, item in found.items():
            is_validation = is_held_out(number)
            values = item.values if is_validation else _rearranged(item, settings=settings)
            part = parts["validation" if is_validation else "train"]
            num_tokens = len(tokenizer.encode_plain(item.text)) if tokenizer else None
            part.add(item, num_tokens=num_tokens, is_rearranged=values is not item.values)
            line = json.dumps(values, ensure_ascii=False) + "\n"
            (validation if is_validation else train).write(line)
    return parts


def _rearranged(item: Item, *, settings: PrepareSettings) -> Mapping[str, Any]:
    """A document with its middle at its end, for `fim_rate` of them (DeepSeek-V3, section 4.1)."""
    marks = (FIM_BEGIN, FIM_HOLE, FIM_END)
    if item.kind is not Kind.DOCUMENT or any(mark in item.answer for mark in marks):
        return item.values
    pieces = cut_document(item.answer, rate=settings.fim_rate, seed=settings.seed)
    if len(pieces) == 1:
        return item.values
    prefix, middle, suffix = pieces
    return {**item.values, "text": f"{FIM_BEGIN}{prefix}{FIM_HOLE}{suffix}{FIM_END}{middle}"}


def _for_each(licences: Sequence[str], paths: Sequence[Path]) -> list[str | None]:
    if not licences:
        return [None] * len(paths)
    return [*licences] * (len(paths) if len(licences) == 1 else 1)
