"""The page of an R1 run, and of several seeds of it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from r1_run import R1Builder, rl_rows
from synthetic_run import EVIL, build_whole_run

from tenth.base.errors import DataError, RunError
from tenth.reports.page import build_page, write_report, write_seeds_report
from tenth.reports.r1_curves import preference_step
from tenth.reports.r1_seeds import show_cell
from tenth.reports.runs import read_run
from tenth.reports.seeds import summarise_seeds


class Reader(HTMLParser):
    """Visible text, tags, and the table rows as lists of cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self.is_in_row = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
            self.is_in_row = True
        if tag in ("th", "td") and self.rows:
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.rows and self.rows[-1] and self.is_in_row:
            self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.is_in_row = self.is_in_row and tag != "tr"


def read_html(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


@pytest.fixture(scope="module")
def page(r1_run: Path) -> str:
    return build_page(read_run(r1_run))


def test_two_sentences_say_what_the_run_shows(page: str):
    text = " ".join(read_html(page).text)
    assert "R1 solves 80.0% of the held-out problems (95% interval 77.0 to 83.0), R1-Zero 80.0%" in text
    assert "of R1's answers 99.0% are readable and 100.0% of the words" in text
    # 204 of 524 parameters, 0.77 of 0.80
    assert "A dense student with 39% of R1's activated parameters solves 77.0%, 96% of what R1 does" in text
    assert "the same student by reinforcement alone reaches 40.0% and 50.0% for the same compute" in text


def test_the_table_marks_the_best_in_words_and_not_by_colour_alone(page: str):
    rows = {row[0]: row for row in read_html(page).rows if row}
    readable = rows["readable for people"]
    assert readable[1:8] == ["40.0", "70.0", "90.0", "97.0", "98.0", "★ 99.0", "★ 99.0"]


def test_the_page_has_every_section(page: str):
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    for heading in (
        "Aims",
        "The stages",
        "How the models grew",
        "Distillation, or reinforcement of the small model",
        "What the models learn from",
        "Reward models",
        "The same problem through all stages",
        "R1-Zero in detail",
        "Time, tokens, dollars",
        "The doctor",
        "How to repeat it",
    ):
        assert heading in headings


def test_a_set_says_what_it_kept_and_dropped(page: str):
    text = " ".join(read_html(page).text)
    assert "90 of 200 sampled answers kept (45.0%). 25 general conversations beside them." in text
    assert "110 dropped, by one rule" in text


@pytest.mark.parametrize("name", ["card.json", "dropped.json"])
@pytest.mark.parametrize("value", [[1], {"wrong": 3}, {"domains": {"chain": {}}, "languages": {}}])
def test_a_damaged_card_is_one_sentence(r1_builder: R1Builder, name: str, value: object):
    r1_builder.data("06-cold-start-data", sampled=10, kept=5)
    r1_builder.write(f"06-cold-start-data/{name}", value)
    with pytest.raises(DataError, match=rf"{name} is not what its stage writes"):
        build_page(read_run(r1_builder.path))


def test_compute_is_compared_within_a_column(page: str):
    rows = {row[0]: row for row in read_html(page).rows if row}
    assert rows["student, SFT on R1's answers"][3:] == ["13M", "20M"]  # 13 + 7 million
    assert rows["student by RL only, without the teacher's sampling, 6 steps"][3:] == ["14M", "–"]
    assert rows["student by RL only, with it, 10 steps"][3:] == ["–", "20M"]


def test_the_same_problem_is_answered_by_every_model(page: str):
    text = "".join(read_html(page).text)
    for stage in ("03-measure-base", "10-measure-reasoning-rl", "16-measure-r1", "20-measure-student"):
        assert text.count(f"{stage} says") >= 2  # one problem per family


def test_model_text_is_shown_and_not_obeyed(page: str):
    reader = read_html(page)
    assert "script" not in reader.tags
    assert EVIL in "".join(reader.text)


def test_the_page_is_small_and_asks_nothing_of_the_network(page: str):
    assert len(page.encode()) < 1_500_000
    assert not {"script", "link", "iframe", "img", "object"} & set(read_html(page).tags)
    assert not re.search(r"@import|url\((?!#)|src=", page)


def test_ids_are_unique_so_that_figures_do_not_borrow_from_each_other(page: str):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_curves_say_where_preference_rewards_begin(page: str):
    assert preference_step(rl_rows(12, preference_from=9)) == 9
    assert preference_step(rl_rows(12)) is None
    assert "preference rewards begin" in page


@pytest.mark.parametrize("steps", range(0, 22, 3))
def test_an_r1_run_in_any_state_has_a_page(r1_run: Path, tmp_path: Path, steps: int):
    part = R1Builder(tmp_path / "part")
    for stage in sorted(path for path in r1_run.iterdir() if path.is_dir())[:steps]:
        (part.path / stage.name).symlink_to(stage)
    text = write_report(part.path).read_text(encoding="utf-8")
    assert "How to repeat it" in text
    assert ("R1 is not measured yet" in text) == (steps < 16)


def test_a_recipe_without_the_control_has_no_columns_for_it(r1_builder: R1Builder):
    r1_builder.write("recipe.json", {"flow": "r1", "student": {"control": False}})
    r1_builder.teacher()
    assert "by RL only</b>" not in build_page(read_run(r1_builder.path))


def test_seeds_of_r1_are_a_stage_table_with_ranges(r1_run: Path, tmp_path: Path):
    other = R1Builder(tmp_path / "other", seed=8)
    other.teacher()
    other.student()
    other.measured("16-measure-r1", 0.90, language=0.9, format=1.0)
    html, markdown, values = write_seeds_report([r1_run, other.path], tmp_path / "out")
    table = json.loads(values.read_text())["table"]
    cells = next(row["cells"] for row in table["rows"] if row["label"] == "all families")
    r1 = cells[table["columns"].index("R1")]
    assert (r1["mean"], r1["min"], r1["max"]) == pytest.approx((0.85, 0.80, 0.90))
    assert r1["values"] == [0.80, 0.90]
    assert "| 85.0 (80.0–90.0) |" in markdown.read_text()
    assert "in the question's language | 1 of 2 |" in markdown.read_text()
    assert "80.0–90.0" in html.read_text()


def test_a_range_is_left_out_where_runs_agree():
    assert show_cell("share", {"mean": 0.5, "min": 0.5, "max": 0.5}) == "50.0"
    assert show_cell("seconds", {"mean": 90.0, "min": 60.0, "max": 120.0}) == "1m30s (1m00s–2m00s)"
    assert show_cell("share", {"mean": None, "min": None, "max": None}) == "–"


def test_runs_of_different_flows_are_not_averaged(r1_run: Path, tmp_path: Path):
    runs = [read_run(r1_run), read_run(build_whole_run(tmp_path / "zero"))]
    with pytest.raises(RunError, match=r"different flows \(r1, zero\); report them apart"):
        summarise_seeds(runs)


def test_an_r1_run_that_is_not_measured_is_named(r1_builder: R1Builder):
    with pytest.raises(RunError, match="r1-part has no measure-r1 evaluation yet"):
        summarise_seeds([read_run(r1_builder.path)])
