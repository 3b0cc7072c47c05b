"""Problems from a file: JSON lines or Parquet, with `prompt` and `answer` or their usual other names.

Why: everyone has such files, and every framework names the columns differently.
In:  a path. Out: `Problem` records; every column travels in `metadata`, as it is written, to the user's
reward.
Not here: judging (check_math.py).

Answers that are whole solutions are cut down to their end: `#### 72` (GSM8K) and \\boxed{72} (MATH); the
solution then stays in metadata["solution"], unless the row has such a column. verl's nested
reward_model.ground_truth is read too, and so are HumanEval and MBPP as they are published (code_sets.py). A
row of one's own asks for a program where its column `code` holds the tests (check_code.py); a row of IFEval
needs no answer, its instructions are what it is judged by.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tenth.base.errors import DataError
from tenth.base.files import read_lines
from tenth.base.records import Problem
from tenth.tasks.answer_text import last_boxed
from tenth.tasks.code_sets import code_problem
from tenth.tasks.ifeval.check import INSTRUCTIONS, problem_with_instructions
from tenth.tasks.task import problem as make_problem

PROMPT_NAMES = ("prompt", "question", "problem")
ANSWER_NAMES = ("answer", "solution", "ground_truth", "label")  # the first that is there wins


def read_problems(path: Path) -> list[Problem]:
    """Every problem of the file, in order. A DataError names the file and the line of what is wrong."""
    return _read(path, needs_answer=True)


def read_prompts(path: Path) -> list[Problem]:
    """The same for rewards that need no answer: where a row has none, `answer` is empty."""
    return _read(path, needs_answer=False)


def _read(path: Path, *, needs_answer: bool) -> list[Problem]:
    if not path.is_file():
        raise DataError(f"problem file {path} does not exist; check the path.")
    rows = _parquet_rows(path) if path.suffix == ".parquet" else read_lines(path)
    problems = [
        _problem(row, where=f"{path}, line {number}", task=path.stem, needs_answer=needs_answer)
        for number, row in rows
    ]
    if not problems:
        raise DataError(
            f"problem file {path} holds no problems; each line is an object with prompt and answer."
        )
    return problems


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"reading {path} needs pyarrow; run pip install tenth[parquet].") from error
    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a readable Parquet file ({error}); write it again or use JSONL."
        ) from error
    yield from enumerate(rows, start=1)


def _problem(row: Any, *, where: str, task: str, needs_answer: bool) -> Problem:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with prompt and answer, found {type(row).__name__}.")
    published = code_problem(row, where=where)
    if published is not None:
        return published
    prompt_name = next((name for name in PROMPT_NAMES if row.get(name) is not None), None)
    if prompt_name is None:
        raise DataError(
            f"{where}: no prompt; name the column one of {', '.join(PROMPT_NAMES)} ({_columns(row)})."
        )
    prompt, messages = _read_prompt(row[prompt_name], where=where)
    answer_name, written = _written_answer(row, where=where, is_needed=needs_answer)
    answer = _short_answer(written)
    if answer_name and not answer:
        raise DataError(f"{where}: the answer in '{answer_name}' is empty; fill it in or remove the line.")
    # "messages" is ours: a prompt that came as messages
    metadata = {name: value for name, value in row.items() if name != "messages"}
    if answer != written.strip():
        metadata.setdefault("solution", written)
    if messages:
        metadata["messages"] = messages
    level = row.get("level")  # MATH writes "Level 5"
    return make_problem(
        str(row.get("task") or task),
        prompt,
        answer,
        level=level if isinstance(level, int) else 0,
        language=str(row.get("language") or "en"),
        metadata=metadata,
    )


def _read_prompt(value: Any, *, where: str) -> tuple[str, list[dict[str, str]]]:
    """(the question, the messages if it came as a conversation)."""
    if isinstance(value, str) and value.strip():
        return value, []
    if isinstance(value, list) and value:
        messages = []
        for message in value:
            if not (
                isinstance(message, Mapping) and isinstance(message.get("content"), str) and "role" in message
            ):
                raise DataError(f"{where}: a message of the prompt has no role or no text content.")
            messages.append({"role": str(message["role"]), "content": message["content"]})
        questions = [message["content"] for message in messages if message["role"] == "user"]
        if questions and questions[-1].strip():
            return questions[-1], messages
        raise DataError(f"{where}: the prompt's messages hold no user message with text.")
    raise DataError(f"{where}: the prompt is neither text nor a list of messages; write it as a string.")


def _written_answer(row: Mapping[str, Any], *, where: str, is_needed: bool) -> tuple[str, str]:
    """(column, the answer as text); two empty texts where there is none and none is needed."""
    found = next(((name, row[name]) for name in ANSWER_NAMES if row.get(name) is not None), None)
    nested = row.get("reward_model")
    if found is None and isinstance(nested, Mapping) and nested.get("ground_truth") is not None:
        found = ("reward_model", nested["ground_truth"])
    if found is None and row.get(INSTRUCTIONS) is not None:
        wrong = problem_with_instructions(row)
        if wrong is not None:
            raise DataError(f"{where}: {wrong[:300]}; mend or remove it.")
        found = (INSTRUCTIONS, ", ".join(row[INSTRUCTIONS]))
    if found is None and not is_needed:
        return "", ""
    if found is None:
        names = ", ".join(ANSWER_NAMES)
        raise DataError(
            f"{where}: no answer; name the column one of {names}, or nest reward_model.ground_truth "
            f"({_columns(row)})."
        )
    name, value = found
    if not isinstance(value, str | int | float):
        raise DataError(
            f"{where}: the answer in '{name}' is a {type(value).__name__}; write it as text or a number."
        )
    return name, str(value)


def _columns(row: Mapping[str, Any]) -> str:
    """What is there instead, as far as a sentence can hold it."""
    names = [str(name)[:40] for name in row]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"the columns are: {', '.join(names[:12]) or 'none'}{more}"


def _short_answer(written: str) -> str:
    if "####" in written:
        return written.rpartition("####")[2].strip().replace(",", "")
    boxed = last_boxed(written)
    return boxed.strip() if boxed is not None else written.strip()
