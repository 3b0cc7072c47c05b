"""The user's own files in an R1 recipe: general conversations, and preferences for the reward models.

DeepSeek-R1 (arXiv:2501.12948v2), sections 3.1 and 3.2.2, B.3.3.
In:  file names of a recipe.  Out: rows to fine-tune on, preferences, the problems that these ask; a DataError
with file and line of what cannot be learned from.
A stage depends on what stands in a file, not on its name, so settings hold its hash.
Not here: the shapes of rows (data/conversations.py, data/preferences.py), toy data (tasks/general.py).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tenth.base.errors import DataError
from tenth.base.files import file_hash
from tenth.base.records import Message, PreferencePair, Problem, Role
from tenth.base.seeds import stream_random
from tenth.checkpoint.reward_dir import RewardKind
from tenth.data.conversations import row_messages
from tenth.data.preferences import LabelledAnswer, PreferenceSet, language_of, messages_of, read_preferences
from tenth.data.rows import Row, read_rows, require_file
from tenth.pipeline.r1_recipe import R1RewardModelSection
from tenth.tasks.general import PREFIX, SAFETY_TASK
from tenth.tasks.shape import write_r1
from tenth.tasks.task import problem
from tenth.tokenizer.chat import split_thinking

_TASKS = {RewardKind.HELPFUL: PREFIX + "helpful", RewardKind.SAFE: SAFETY_TASK}


def content_hashes(folder: Path, names: Iterable[str]) -> list[str]:
    """Of each file's bytes."""
    return [file_hash(require_file(folder / name)) for name in names]


def general_rows(folder: Path, names: Sequence[str], *, seed: int) -> list[dict[str, Any]]:
    """Every conversation of the files, in an order drawn from the seed."""
    rows = [_conversation(folder / name, row) for name in names for row in read_rows(folder / name)]
    if names and not rows:
        raise DataError(f"{', '.join(names)} holds no conversation; name a file that does.")
    stream_random(seed, "general-files").shuffle(rows)
    return rows


def file_preferences(folder: Path, section: R1RewardModelSection, kind: RewardKind) -> PreferenceSet | None:
    """What the model of that kind learns from; None where the recipe names no files."""
    names = section.helpful_files if kind is RewardKind.HELPFUL else section.safe_files
    if not names:
        return None
    found = read_preferences([folder / name for name in names])
    if found.labelled and kind is RewardKind.HELPFUL:
        raise DataError(
            f"reward_model.helpful_files: {found.labelled[0].metadata['place']} is a labelled answer, but "
            "the helpful model compares pairs; name its file in reward_model.safe_files."
        )
    for each in _items(found):
        _require_turns(messages_of(each), place=each.metadata["place"], last=Role.USER)
    return found


def preference_problems(found: PreferenceSet, kind: RewardKind) -> list[Problem]:
    """What they ask, each once. Nobody knows a right answer, so only the reward model judges."""
    asked = {each.prompt: each for each in _items(found)}
    return [_problem(each, kind) for each in asked.values()]


def _items(found: PreferenceSet) -> list[PreferencePair | LabelledAnswer]:
    return [*found.pairs, *found.labelled]


def _problem(item: PreferencePair | LabelledAnswer, kind: RewardKind) -> Problem:
    turns = item.metadata.get("messages")
    metadata = {} if turns is None else {"messages": turns}
    return problem(_TASKS[kind], item.prompt, "", language=item.language, metadata=metadata)


def _conversation(path: Path, row: Row) -> dict[str, Any]:
    messages = row_messages(row)
    place = row.place.removeprefix(f"{path.parent}/")
    _require_turns(messages, place=place, last=Role.ASSISTANT)
    answer = messages[-1].content
    if split_thinking(answer).thinking is None:  # the form of every answer that R1 learns
        messages[-1] = Message(role=Role.ASSISTANT, content=write_r1("", answer))
    given = {name: row.values.get(name) for name in ("domain", "language")}
    lineage = row.values.get("lineage")
    unknown = {"model": "unknown", "verifier": "none", "filters": [], "rewriter": "none"}
    return {
        "messages": [{"role": str(turn.role), "content": turn.content} for turn in messages],
        "domain": given["domain"] if isinstance(given["domain"], str) else "general",
        "language": given["language"] if isinstance(given["language"], str) else language_of(answer),
        "lineage": {"prompt": place, **(lineage if isinstance(lineage, dict) else unknown)},
    }


def _require_turns(messages: Sequence[Message], *, place: str, last: Role) -> None:
    """User and assistant in turn, a user first, `last` last."""
    roles = [each.role for each in messages if each.role is not Role.SYSTEM]
    in_turn = [(Role.USER, Role.ASSISTANT)[number % 2] for number in range(len(roles))]
    if not roles or roles != in_turn or roles[-1] is not last:
        raise DataError(
            f"{place}: its messages are from {', '.join(roles) or 'nobody'}, but user and assistant must "
            f"alternate, a user first and the {last} last; mend or remove the row."
        )
