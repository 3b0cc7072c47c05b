"""The page: whole, partial, offline, and safe against what models write."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import (
    BASE_ACCURACY,
    EVIL,
    RunBuilder,
    build_whole_run,
    evaluation,
    pretrain_rows,
    score,
)

from tenth.reports import figures, panels
from tenth.reports.answers import show_text
from tenth.reports.gain import Gain
from tenth.reports.markup import Html, element, join
from tenth.reports.page import build_page, write_report, write_seeds_report
from tenth.reports.runs import read_run
from tenth.reports.scores import parse_evaluation


class Reader(HTMLParser):
    """Collects tags, attributes and visible text as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read_html(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


@pytest.fixture(scope="module")
def page(whole_run: Path) -> str:
    return build_page(read_run(whole_run))


def test_the_page_shows_the_headline_numbers(page: str):
    text = " ".join(read_html(page).text)
    for words in ("30.0%", "90.0%", "+60.0", "+30.0 over base's best", "11m20s", "Where the gain comes from"):
        assert words in text


def test_the_page_asks_nothing_of_the_network(page: str):
    reader = read_html(page)
    assert not {"script", "link", "iframe", "img", "object"} & set(reader.tags)
    outside = [value for name, value in reader.attributes if name in {"src", "href", "xlink:href"}]
    assert [value for value in outside if not (value or "").startswith("#")] == []
    assert not re.search(r"@import|url\((?!#)", page)


def test_model_text_is_shown_and_not_obeyed(page: str):
    reader = read_html(page)
    assert "script" not in reader.tags
    assert EVIL in "".join(reader.text)


@given(st.text(alphabet=st.sampled_from(list("<>&\"'/abthinkswer 五")), max_size=60))
def test_any_model_text_survives_the_page_unchanged(text: str):
    reader = read_html(show_text(text))
    assert "".join(reader.text) == text
    assert set(reader.tags) <= {"pre", "span"}


def test_thinking_is_dimmed_up_to_its_closing_tag():
    shown = show_text("<think>a</think>b")
    assert '<span class="think">a</span>' in shown
    assert "<span>b</span>" in shown


def test_children_and_attributes_are_escaped_unless_marked():
    assert element("p", "<b>", title='"') == '<p title="&quot;">&lt;b&gt;</p>'
    assert element("p", Html("<b>x</b>")) == "<p><b>x</b></p>"
    assert join(["a", None, Html("<br>")]) == "a<br>"


def test_the_same_run_gives_the_same_bytes(whole_run: Path, page: str):
    assert build_page(read_run(whole_run)) == page


def test_ids_are_unique_so_that_figures_do_not_borrow_from_each_other(page: str):
    ids = [value for name, value in read_html(page).attributes if name == "id"]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("stages", [(), ("documents",), ("documents", "base"), ("base", "zero")])
def test_a_run_in_any_state_has_a_page(builder: RunBuilder, stages: tuple[str, ...]):
    for stage in stages:
        getattr(builder, stage)()
    page = write_report(builder.path).read_text(encoding="utf-8")
    assert "How to repeat it" in page
    assert ("Pre-training the base" in page) == ("base" in stages)
    assert ("R1-Zero is not measured yet" in page) == ("zero" not in stages)


def test_a_stage_cut_off_in_the_middle_is_shown_as_not_finished(builder: RunBuilder):
    builder.write_rows("02-base/metrics.jsonl", pretrain_rows(7))
    assert "base (not finished)" in build_page(read_run(builder.path))


def test_an_unfinished_run_is_not_praised_for_its_time(builder: RunBuilder):
    builder.base()
    builder.zero()
    assert "the whole run takes at most 20 minutes" in build_page(read_run(builder.path))
    (builder.path / "05-measure-zero" / "DONE.json").unlink()
    assert "the whole run takes at most 20 minutes" not in build_page(read_run(builder.path))


def test_a_title_cannot_break_out_of_the_page(tmp_path: Path):
    page = build_page(read_run(RunBuilder(tmp_path / "run", name="</title><script>x").path))
    assert "script" not in read_html(page).tags


def test_findings_reach_the_page(builder: RunBuilder):
    builder.write_rows("04-zero/metrics.jsonl", [{"step": 0, "reward": 0.0, "kl": 9.0}])
    page = build_page(read_run(builder.path))
    assert "KL to the reference is 9.00 nats per token" in page
    assert "A GRPO loss near 0 is normal" in page


def test_what_the_base_solves_in_16_tries_stands_beside_the_controls(builder: RunBuilder):
    builder.base()
    value = evaluation(BASE_ACCURACY)
    value["modes"]["sampled_pass16"] = {"overall": score(0.3, pass_at={"1": 0.3, "16": 0.777})}
    builder.write("03-measure-base/eval.json", value)
    builder.controls()
    text = " ".join(read_html(build_page(read_run(builder.path))).text)
    assert "base, solved by one of 16 samples (pass@16) 77.7" in text


def test_seeds_are_written_as_page_table_and_json(tmp_path: Path):
    runs = [build_whole_run(tmp_path / f"seed{seed}", seed=seed) for seed in (1, 2)]
    paths = write_seeds_report(runs, tmp_path / "out")
    assert [path.name for path in paths] == ["seeds.html", "seeds.md", "seeds.json"]
    assert json.loads(paths[2].read_text())["numbers"]["R1-Zero"]["values"] == [0.9, 0.9]


def test_nothing_to_draw_is_none():
    assert figures.draw_curves([], panels.PRETRAIN_PANELS, name="x") is None
    assert figures.draw_families(None, None) is None
    assert figures.draw_levels(None, None) is None
    assert figures.draw_costs([]) is None


def test_a_figure_is_wellformed_and_has_no_ink_of_its_own():
    svg = figures.draw_gain(Gain(start=0.3, format=0.1, thinking=-0.1, ability=0.5, end=0.8))
    root = ElementTree.fromstring(svg)
    assert root.attrib["viewBox"]
    assert "width" not in root.attrib
    assert "var(--ink)" in svg
    assert panels.ZERO_COLOUR in svg


def test_panels_without_data_are_left_out():
    svg = figures.draw_curves([{"step": 0, "loss": 1.0}], panels.PRETRAIN_PANELS, name="x")
    assert svg is not None
    assert "Loss" in svg
    assert "MaxVio" not in svg


def test_a_moving_average_shrinks_evenly_at_the_ends():
    # window 3: each inner value is the mean of three, the ends stay as they are
    assert panels.smooth([0.0, 3.0, 6.0, 0.0], window=3) == [0.0, 3.0, 3.0, 0.0]
    assert panels.smooth([1.0, 2.0], window=0) == [1.0, 2.0]


def test_the_legend_names_a_line_that_only_a_later_family_has():
    value = evaluation({"sampled": 0.3}, longest_in_documents={"sorting": 6})
    svg = figures.draw_levels(parse_evaluation(value), None)
    assert svg is not None
    assert "longest in documents" in svg


def test_one_panel_per_family():
    rows = [{"step": 0, "accuracy/gcd": 0.5, "accuracy/chain": 0.5, "rewards/accuracy/mean": 0.5}]
    assert [panel.title for panel in panels.family_panels(rows)] == ["chain", "gcd"]
