"""Reading evaluations."""

import json
from pathlib import Path

import pytest
from synthetic_run import evaluation, sample, score

from tenth.base.errors import DataError
from tenth.reports.scores import is_readable, parse_evaluation, read_evaluation, read_samples


def test_scores_are_found_by_mode_and_family():
    found = parse_evaluation(evaluation({"sampled": 0.3}))
    assert found.score("sampled").accuracy == 0.3
    assert found.score("sampled", "chain").accuracy == pytest.approx(0.265)  # 0.3 - 3.5 families * 1 %
    assert found.score("greedy") is None
    assert found.mean_guess == pytest.approx(0.1)


def test_pass_at_k_and_levels_get_numbers_for_keys():
    found = parse_evaluation(evaluation({"sampled": 0.3}))
    assert found.score("sampled").pass_at[4] == 0.5
    assert list(found.levels["sampled"]["gcd"]) == [2, 3, 4, 5, 6, 7]


def test_only_accuracy_is_needed():
    found = parse_evaluation({"modes": {"sampled": {"overall": {"accuracy": 0.5}}}})
    assert (found.score("sampled").low, found.score("sampled").high) == (0.5, 0.5)
    assert found.score("sampled").majority is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think> 1 </think> <answer> 2 </answer>", True),
        ("<answer>\n2\n</answer>", True),
        ("<think> 1 </think> <answer> 2", False),  # cut off
        ("2", False),
    ],
)
def test_an_answer_is_readable_when_its_tag_is_closed(text: str, expected: bool):
    assert is_readable(text) is expected


def test_readable_share_comes_from_the_stored_samples(tmp_path: Path):
    (tmp_path / "eval.json").write_text(
        json.dumps({"modes": {"sampled": {"overall": score(0.3, format=0.1)}}})
    )
    texts = ["<answer> 1 </answer>", "<answer> 1", "1", "<answer> 1 </answer>"]
    rows = [sample(f"{i}", family="gcd", text=text, is_correct=False) for i, text in enumerate(texts)]
    (tmp_path / "samples").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "samples" / "sampled.jsonl").write_text(lines)
    assert read_evaluation(tmp_path).score("sampled").readable == 0.5


def test_without_samples_the_well_formed_share_stands_in(tmp_path: Path):
    (tmp_path / "eval.json").write_text(
        json.dumps({"modes": {"sampled": {"overall": score(0.3, format=0.7)}}})
    )
    assert read_evaluation(tmp_path).score("sampled").readable == 0.7


def test_no_evaluation_yet_is_none(tmp_path: Path):
    assert read_evaluation(tmp_path) is None


def test_a_file_of_another_shape_is_one_sentence(tmp_path: Path):
    (tmp_path / "eval.json").write_text('{"modes": {"sampled": 3}}')
    with pytest.raises(DataError, match=r"eval\.json is not an evaluation"):
        read_evaluation(tmp_path)


def test_a_torn_last_sample_is_left_out(tmp_path: Path):
    whole = json.dumps(sample("a", family="gcd", text="x", is_correct=True))
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "sampled.jsonl").write_text(whole + "\n" + whole[:20])
    assert len(read_samples(tmp_path, "sampled")) == 1
