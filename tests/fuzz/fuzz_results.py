"""Readers of data and of runs, to be damaged: how sound files for each are made, and what reads them.

In:  an empty directory.  Out: as in fuzz_readers.py.
"""

import json
import sys
from pathlib import Path

import torch
from fuzz_readers import LLAMA, Reader, model_of, vocabulary

from tenth.base.records import Role
from tenth.checkpoint.reward_dir import RewardFacts, RewardKind, load_reward_model, save_reward_model
from tenth.data.preferences import as_labels, messages_of, read_preferences
from tenth.model.scalar_head import RewardModel
from tenth.pipeline.r1_files import general_rows
from tenth.pipeline.stage import (
    Outcome,
    Stage,
    StageClock,
    adopt_records,
    done_stages,
    require_ready,
    run_stages,
    stale_stages,
)
from tenth.reports.page import write_report
from tenth.reports.runs import read_run, summarise_run
from tenth.tasks.suites.asking import conversation
from tenth.tasks.suites.judging import rule
from tenth.tasks.suites.table import SUITES, load_suite
from tenth.tokenizer.chat import Template
from tenth.training.batches import TrainedSequence
from tenth.training.distill import TopK
from tenth.training.top_k_files import read_top_k, write_top_k

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))
from r1_run import build_r1_run

ANSWER = "The answer is (B).\n\n- one\n* two\n<<title>> 7 [x] P.S. \\boxed{7}\n```python\nx = 1\n```\n"
PREFERENCES = [
    {"prompt": "q", "chosen": "c", "rejected": "r"},
    {"question": [{"role": "user", "content": "q"}], "chosen": {"role": "assistant", "content": "c"}}
    | {"rejected": [{"role": "assistant", "content": "r"}]},
    {"chosen": "\n\nHuman: q\n\nAssistant: c", "rejected": "\n\nHuman: q\n\nAssistant: r"},
    {"prompt": "问题", "response": "回答", "label": "safe"},
]
CONVERSATIONS = [
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "language": "en"},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
    {"instruction": "q", "input": "more", "output": "a", "lineage": {"model": "m", "filters": []}},
]
CHOICE = {"query": "Question: q", "choices": ["red", "green"], "gold": 1}
KWARGS = [
    *({"num_words": 10, "relation": "at least"}, {"keywords": ["one", "two"]}, {"postscript_marker": "P.S."}),
    {"letter": "a", "let_frequency": 2, "let_relation": "less than"},
    {"forbidden_words": ["none"], "num_words": None},
]
IFEVAL = {
    "prompt": "q",
    "instruction_id_list": [
        "length_constraints:number_words", "keywords:existence", "detectable_content:postscript",
        "keywords:letter_frequency", "keywords:forbidden_words",
    ],
    "kwargs": KWARGS,
}  # fmt: skip
SUITE_ROWS = {
    "gsm8k_test.jsonl": {"question": "q", "answer": "3 + 4 #### 7"},
    "math.jsonl": {"problem": "q", "solution": "\\boxed{7}", "level": "Level 5", "type": "Algebra"},
    "svamp.jsonl": {"Body": "b", "Question": "q", "Answer": 7.0},
    "mawps.jsonl": {"input": "q", "target": 0.3333333333},
    "multiarith.jsonl": {"input": "q", "target": 0.3333333333},
    "aqua.jsonl": {"question": "q", "options": ["A)1", "B)2"], "correct": "B"},
    "cmath.jsonl": {"question": "问", "answer": "7", "grade": 3},
    "mmlu_val.jsonl": {"question": "q", "choices": ["a", "b"], "answer": "B", "subject": "s"},
    "humaneval.jsonl": {"task_id": "H/0", "prompt": "def f(x):\n", "entry_point": "f"}
    | {"canonical_solution": "    return x\n", "test": "def check(f):\n    assert f(1) == 1\n"},
    "mbpp.jsonl": {"task_id": 1, "text": "t", "code": "def f(x):\n  return x", "test_list": ["assert f(1)"]}
    | {"test_setup_code": ""},
    "ifeval.jsonl": IFEVAL,
    "lm/arc_easy.jsonl": CHOICE,
    "lm/copa.jsonl": CHOICE,
    "lm/lambada.jsonl": {"context": "c", "continuation": " w"},
}
SEQUENCES = [TrainedSequence(ids=(1, 2, 3, 4), trained=(False, True, True, True))] * 2


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """One to a line, and the same as an array, which edits of values reach."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_preferences(directory: Path) -> Path:
    """Every shape, in both kinds of file."""
    write_rows(directory / "rows.jsonl", PREFERENCES)
    (directory / "rows.json").write_text(json.dumps(PREFERENCES))
    return directory / "rows.json"


def write_conversations(directory: Path) -> Path:
    """Likewise."""
    write_rows(directory / "rows.jsonl", CONVERSATIONS)
    (directory / "rows.json").write_text(json.dumps(CONVERSATIONS))
    return directory / "rows.json"


def write_suites(directory: Path) -> Path:
    """A file of one row for each; BIG-bench's holds all of its rows in one object."""
    for name, row in SUITE_ROWS.items():
        write_rows(directory / "eval" / name, [row])
    for name, target in (
        ("boolean_expressions", "True"),
        ("navigate", "Yes"),
        ("multistep_arithmetic_two", "7"),
    ):
        path = directory / "eval" / "bbh" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"examples": [{"input": "q", "target": target}]}))
    return directory / "eval"


def write_reward(directory: Path) -> Path:
    """A reward model."""
    model = RewardModel(model_of(LLAMA))
    facts = RewardFacts(kind=RewardKind.HELPFUL, centre=0.5)
    save_reward_model(
        directory / "model", model, facts, tokenizer=vocabulary(), template=Template.DEEPSEEK
    )  # fmt: skip
    return directory / "model"


def write_teacher(directory: Path) -> Path:
    """A teacher's distributions over six tokens."""
    tops = [TopK(ids=torch.zeros(3, 2, dtype=torch.int32), logp=torch.full((3, 3), -1.0))] * 2
    write_top_k(directory / "shard", SEQUENCES, tops, temperature=1.0)
    return directory / "shard"


def write_run(directory: Path) -> Path:
    """A run of R1, every stage of it finished."""
    return build_r1_run(directory / "run")


def stages() -> list[Stage]:
    """Two, of which the second needs the first."""

    def work(directory: Path) -> Outcome:
        StageClock(directory).save()
        (directory / "result.txt").write_text("made")
        return Outcome(summary={"made": 1}, tokens=1.0)

    return [
        Stage(name="first", settings={"seed": 1}, run=work),
        Stage(name="second", settings={"seed": 2, "deep": {"a": [1]}}, run=work, needs=("first",)),
    ]


def write_stages(directory: Path) -> Path:
    """A story of two stages, told."""
    run_stages(directory / "run", stages())
    return directory / "run"


def use_preferences(path: Path) -> None:
    """As training takes them."""
    found = read_preferences([path, path.with_suffix(".jsonl")])
    for each in (*found.pairs, *found.labelled, *as_labels(found.pairs)):
        assert messages_of(each)[-1].content.encode() is not None
    found.sentences()


def use_conversations(path: Path) -> None:
    """As the rejection set takes them."""
    for row in general_rows(path.parent, [path.name, "rows.jsonl"], seed=1):
        assert row["messages"][-1]["role"] == Role.ASSISTANT
        json.dumps(row, ensure_ascii=False).encode()


def use_suites(path: Path) -> None:
    """Every question of every suite, asked and judged."""
    for suite in SUITES.values():
        for problem in load_suite(suite.name, path):
            conversation(problem, suite.kind)[-1].content.encode()
            if suite.kind not in ("code", "math", "number", "continuation", "options"):  # judged elsewhere
                rule([problem], [ANSWER], suite.kind, check=None)


def use_reward(path: Path) -> None:
    """As the second reinforcement loads it."""
    load_reward_model(path, dtype=torch.float32)


def use_teacher(path: Path) -> None:
    """As a student reads it."""
    assert [len(each.ids) for each in read_top_k(path, SEQUENCES, temperature=1.0)] == [3, 3]


def use_report(path: Path) -> None:
    """The page, which is taken away again; whoever refuses leaves none."""
    try:
        assert "</html>" in write_report(path).read_text()
    finally:
        (path / "report.html").unlink(missing_ok=True)


def use_line(path: Path) -> None:
    """What `tenth runs` says of it."""
    summarise_run(path)
    read_run(path)


def use_stages(path: Path) -> None:
    """What is asked before a run goes on; nothing that is there may go."""
    adopt_records(path, stages())
    require_ready(path, stages())
    done_stages(path, stages())
    stale_stages(path, stages())
    for directory in path.iterdir():
        StageClock(directory)


RESULT_READERS = {
    "preferences": Reader(build=write_preferences, files=("rows.*",), uses=(use_preferences,)),
    "conversations": Reader(build=write_conversations, files=("rows.*",), uses=(use_conversations,)),
    "suites": Reader(build=write_suites, files=("eval/*.jsonl", "eval/*/*.json*"), uses=(use_suites,)),
    "instructions": Reader(build=write_suites, files=("eval/ifeval.jsonl",), uses=(use_suites,)),
    "reward model": Reader(
        build=write_reward, files=("model/reward.json", "model/value_head.safetensors"), uses=(use_reward,)
    ),
    "teacher": Reader(build=write_teacher, files=("shard.*",), uses=(use_teacher,)),
    "report": Reader(
        build=write_run,
        files=(
            *("run/*.json", "run/*/DONE.json", "run/*/eval.json", "run/*/card.json", "run/*/scores.json"),
            *("run/*/dropped.json", "run/*/compute.json", "run/*/model/config.json", "run/*/metrics.jsonl"),
            "run/*/samples/*",
        ),
        uses=(use_report, use_line),
    ),
    "stages": Reader(build=write_stages, files=("run/*/*.json",), uses=(use_stages,)),
}
