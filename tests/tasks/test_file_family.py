import json
import random
from pathlib import Path

import pytest

from tenth.base.errors import ConfigError
from tenth.tasks.file_family import FileFamily
from tenth.tasks.task import Split, Work, sample_problems, split_of


@pytest.fixture
def family(tmp_path: Path) -> FileFamily:
    rows = [{"question": f"What is {a} plus 2?", "answer": str(a + 2)} for a in range(200)]
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FileFamily(path)


def test_a_file_is_a_family_named_by_its_stem(family: FileFamily) -> None:
    problem = family.make(random.Random(1), level=0)
    assert (family.name, problem.task, problem.level) == ("sums", "sums", 0)


def test_its_answers_are_judged_by_value_not_by_spelling(family: FileFamily) -> None:
    problem = next(p for p in sample_problems(family, levels=[0], split=Split.TRAIN, count=50, seed=1))
    value = int(problem.answer)
    assert family.check(problem, f"{value}.0").is_correct
    assert not family.check(problem, str(value + 1)).is_correct


def test_its_splits_share_no_question(family: FileFamily) -> None:
    test = sample_problems(family, levels=[0], split=Split.TEST, count=5, seed=1)
    assert all(split_of(problem.problem_id) is Split.TEST for problem in test)


def test_it_cannot_fill_documents(family: FileFamily) -> None:
    problem = family.make(random.Random(1), level=0)
    with pytest.raises(ConfigError, match="problem file"):
        family.work(problem, random.Random(1), kind=Work.CLEAN)
