import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import ConfigError, DataError
from tenth.data.check import OVERLAP, check
from tenth.data.prepare import FILES, PrepareSettings, prepare
from tenth.data.user_rows import Item
from tenth.tokenizer.train import train_bpe

TEN = "one two three four five six seven eight nine ten"
WORDS = [f"w{number}" for number in range(500)]


def allow(_item: Item) -> None:
    return None


def write_rows(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def prepared(directory, paths, *, against=(), licences=(), held_out=allow, **settings):
    directory.mkdir()
    return prepare(
        directory,
        paths,
        against=against,
        licences=licences,
        settings=PrepareSettings(**settings),
        held_out=held_out,
    )


def checked(paths, *, against=(), held_out=allow):
    return check(paths, against=against, settings=PrepareSettings(), held_out=held_out)


def leaks(findings):
    return {problem.name: problem.count for problem in findings.problems if problem.is_leak}


def document(seed, count=60):
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def test_every_row_is_in_one_file_and_the_card_counts_it(tmp_path):
    rows = [{"text": document(seed), "n": seed} for seed in range(40)]
    rows += [{"text": rows[0]["text"].replace(" ", "  "), "n": 40}]  # exact but for white space
    rows += [{"text": rows[1]["text"].rsplit(" ", 1)[0] + " end", "n": 41}]  # one run of 56 differs
    rows += [{"text": f"before {TEN} after", "n": 42}, {"text": "", "n": 43}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    test = write_rows(tmp_path / "t.jsonl", [{"question": TEN}])
    card = prepared(tmp_path / "out", [path], against=[test], licences=["MIT"], validation_share=0.3)
    train, validation, dropped = (read(tmp_path / "out" / name) for name in FILES[:3])
    assert sorted(row["n"] for row in train + validation) == list(range(40))
    assert {row["rule"] for row in dropped} == set(card["dropped"])
    assert card["dropped"] == {"empty": 1, "exact duplicate": 1, "contaminated": 1, "near-duplicate": 1}
    assert card["sources"][0]["licence"] == "MIT"
    assert card["decontamination"]["files"][0]["rows_removed"] == 1
    assert {name: part["rows"] for name, part in card["parts"].items()} == {
        "train": len(train),
        "validation": len(validation),
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=30), st.integers(0, 3))
def test_no_prompt_and_no_near_duplicate_is_on_both_sides(tmp_path_factory, prompts, edits):
    folder = tmp_path_factory.mktemp("split")
    rows = []
    for number, prompt in enumerate(prompts):
        words = document(prompt).split()
        words[number % (1 + edits)] = "changed"
        rows.append({"prompt": " ".join(words), "completion": document(1000 + number)})
    path = write_rows(folder / "a.jsonl", rows)
    prepared(folder / "out", [path], validation_share=0.5)
    parts = [folder / "out" / "train.jsonl", folder / "out" / "validation.jsonl"]
    parts = [part for part in parts if part.stat().st_size]
    assert OVERLAP not in leaks(checked(parts))
    sides = [{row["prompt"] for row in read(part)} for part in parts]
    assert len(sides) == 1 or not sides[0] & sides[1]


def test_the_same_rows_in_another_order_are_split_alike(tmp_path):
    rows = [{"text": document(seed)} for seed in range(60)]
    sides = []
    for name, order in (("one", rows), ("two", rows[::-1])):
        prepared(tmp_path / name, [write_rows(tmp_path / f"{name}.jsonl", order)], validation_share=0.4)
        sides.append({row["text"] for row in read(tmp_path / name / "validation.jsonl")})
    assert sides[0] == sides[1]
    assert 10 <= len(sides[0]) <= 38  # 24 expected, standard deviation 3.8


def test_preparing_twice_writes_the_same_bytes(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"text": document(seed)} for seed in range(30)])
    for name in ("one", "two"):
        prepared(tmp_path / name, [path], fim_rate=0.5)
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_several_answers_to_one_prompt_stay_and_stay_together(tmp_path):
    rows = [{"prompt": "Tell me a story.", "completion": document(seed)} for seed in range(6)]
    card = prepared(tmp_path / "out", [write_rows(tmp_path / "a.jsonl", rows)], validation_share=0.5)
    assert sorted(part["rows"] for part in card["parts"].values()) == [0, 6]


def test_the_same_problem_with_other_numbers_is_no_duplicate(tmp_path):
    rows = [{"problem": f"{document(1)} {n}", "answer": n} for n in range(3)]
    rows.append({"problem": f"{document(1)} 0 !", "answer": 0})
    card = prepared(tmp_path / "out", [write_rows(tmp_path / "a.jsonl", rows)])
    assert card["dropped"] == {"near-duplicate": 1}


def test_a_question_with_two_answers_goes_with_both(tmp_path):
    answers = (("1+1?", 2), ("1+1?", 3), ("2+2?", 4))
    rows = [{"problem": problem, "answer": answer} for problem, answer in answers]
    card = prepared(tmp_path / "out", [write_rows(tmp_path / "a.jsonl", rows)])
    assert card["dropped"] == {"contradicting answers": 2}
    assert "'2' in" in card["examples"]["contradicting answers"][0]["detail"]


def test_one_half_and_a_decimal_half_do_not_contradict(tmp_path):
    rows = [{"problem": "half?", "answer": "1/2"}, {"problem": "half?", "answer": "0.5"}]
    assert leaks(checked([write_rows(tmp_path / "a.jsonl", rows)])) == {}


def test_without_tests_the_card_says_not_decontaminated(tmp_path):
    card = prepared(tmp_path / "out", [write_rows(tmp_path / "a.jsonl", [{"text": "x"}])])
    assert card["decontamination"] == {"done": False}
    assert "**Not decontaminated**" in (tmp_path / "out" / "card.md").read_text()


def test_where_everything_is_dropped_the_rule_is_named_with_an_example(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"text": ""}, {"text": " "}, {"x": 1}])
    with pytest.raises(DataError, match=r"none of the 3 rows .*missing columns 1, empty 2.*line 1: empty"):
        prepared(tmp_path / "out", [path])
    assert list((tmp_path / "out").iterdir()) == []


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no rows"):
        prepared(tmp_path / "out", [tmp_path / "a.jsonl"])


def test_fill_in_the_middle_keeps_every_character_and_leaves_validation_alone(tmp_path):
    rows = [{"text": document(seed)} for seed in range(40)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    card = prepared(tmp_path / "out", [path], fim_rate=1.0, validation_share=0.3)
    restored = []
    for row in read(tmp_path / "out" / "train.jsonl"):
        begin, rest = row["text"].split("<｜fim▁hole｜>")
        suffix, middle = rest.split("<｜fim▁end｜>")
        restored.append(begin.removeprefix("<｜fim▁begin｜>") + middle + suffix)
    plain = [row["text"] for row in read(tmp_path / "out" / "validation.jsonl")]
    assert sorted(restored + plain) == sorted(row["text"] for row in rows)
    assert card["parts"]["train"]["fill_in_middle"] == len(restored)
    assert card["parts"]["validation"]["fill_in_middle"] == 0


def test_synthetic_rows_are_counted_by_model_and_those_without_lineage_reported(tmp_path):
    lineage = {"model": "r1", "prompt": "p", "verifier": "v", "filters": []}
    rows = [
        {"text": "a", "lineage": lineage},
        {"text": "b", "lineage": {"model": "r1"}},
        {"text": "c", "synthetic": True},
        {"text": "d", "synthetic": False},
    ]
    path = write_rows(tmp_path / "a.jsonl", rows)
    card = prepared(tmp_path / "out", [path], validation_share=0)
    assert card["parts"]["train"]["synthetic"] == {
        "with_lineage": 2,
        "without_lineage": 1,
        "models": {"r1": 2},
        "missing": {"filters": 1, "prompt": 1, "verifier": 1},
    }


def test_tokens_are_counted_where_a_tokenizer_is_named(tmp_path):
    tokenizer = train_bpe(["some text"], vocab_size=300)
    tokenizer.save(tmp_path / "tokenizer")
    path = write_rows(tmp_path / "a.jsonl", [{"text": "zq zq"}])
    card = prepared(tmp_path / "out", [path], validation_share=0, tokenizer=str(tmp_path / "tokenizer"))
    assert card["parts"]["train"]["tokens"] == len(tokenizer.encode_plain("zq zq"))


def test_licences_are_one_for_all_or_one_for_each(tmp_path):
    paths = [write_rows(tmp_path / f"{n}.jsonl", [{"text": document(n)}]) for n in range(3)]
    card = prepared(tmp_path / "out", paths, licences=["A", "B", "C"])
    assert [source["licence"] for source in card["sources"]] == ["A", "B", "C"]
    with pytest.raises(ConfigError, match="2 licences for 3 files"):
        prepared(tmp_path / "other", paths, licences=["A", "B"])


def test_what_two_files_share_is_a_leak_and_what_one_repeats_is_not(tmp_path):
    text = document(1)
    train = write_rows(tmp_path / "train.jsonl", [{"text": text}, {"text": text}, {"text": document(2)}])
    assert checked([train]).is_clean
    copy = write_rows(tmp_path / "copy.jsonl", [{"text": text}, {"text": document(3)}])
    near = write_rows(tmp_path / "near.jsonl", [{"text": text.rsplit(" ", 1)[0]}])
    assert leaks(checked([train, copy])) == {OVERLAP: 1}
    assert leaks(checked([train, near])) == {OVERLAP: 1}


def test_every_kind_of_trouble_is_reported_with_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        {"prompt": "p", "chosen": "c", "rejected": "c"},
        {"prompt": "p", "answer": ""},
        {"prompt": "p", "completion": "<think>"},
        {"text": TEN},
    ]
    path.write_text("{not json\n" + "".join(json.dumps(row) + "\n" for row in rows))
    findings = checked([path], against=[write_rows(tmp_path / "t.jsonl", [{"question": TEN}])])
    lines = {problem.name: problem.examples[0].split(": ")[0] for problem in findings.problems}
    expected = ["unreadable", "chosen equals rejected", "empty", "unclosed thinking", "contaminated"]
    assert lines == {name: f"{path}, line {number}" for number, name in enumerate(expected, start=1)}
    assert not findings.is_clean


def test_a_setting_that_cannot_be_meant_is_refused():
    with pytest.raises(ConfigError, match=r"near_threshold = 0\.2; set it from 0\.5 to 1"):
        PrepareSettings(near_threshold=0.2)
