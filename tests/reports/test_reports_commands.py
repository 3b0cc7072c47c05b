"""The commands about runs, as a person types them."""

import io
from pathlib import Path

import pytest
import typer
from rich.console import Console
from synthetic_run import RunBuilder, build_whole_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from tenth.base.errors import ConfigError, RunError
from tenth.cli import runs as runs_commands
from tenth.cli.live import LiveView, StageProgress, columns_for, plain_line
from tenth.cli.report import report
from tenth.cli.tensorboard import TensorBoardSink
from tenth.endpoint.budget import Budget

command = typer.Typer()
command.command()(report)


@pytest.fixture
def runs_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "runs"


def invoke(app: typer.Typer, *arguments: str, answer: str | None = None):
    return CliRunner().invoke(app, list(arguments), input=answer)


def test_report_writes_the_page_into_the_run(runs_dir: Path):
    RunBuilder(runs_dir / "main").documents()
    assert invoke(command, "main").output == "runs/main/report.html\n"
    assert (runs_dir / "main" / "report.html").exists()


def test_report_of_several_runs_is_a_summary(runs_dir: Path):
    for seed in (1, 2):
        build_whole_run(runs_dir / f"seed{seed}", seed=seed)
    assert invoke(command, "seed1", "seed2", "--out", "docs").exit_code == 0
    assert Path("docs/seeds.md").exists()


def test_report_of_an_unknown_run_is_one_sentence(runs_dir: Path):
    assert isinstance(invoke(command, "nothing").exception, RunError)


def test_out_is_refused_for_one_run(runs_dir: Path):
    RunBuilder(runs_dir / "main")
    assert isinstance(invoke(command, "main", "--out", "x").exception, ConfigError)


def test_runs_lists_by_default(runs_dir: Path):
    build_whole_run(runs_dir / "main")
    RunBuilder(runs_dir / "empty")
    for arguments in ((), ("list",)):
        output = invoke(runs_commands.app, *arguments).output
        assert "measure-controls" in output
        assert "11m20s" in output
        assert "90.0%" in output
        assert "not begun" in output


def test_no_runs_say_how_to_make_one(runs_dir: Path):
    assert "make run" in invoke(runs_commands.app).output


def test_compare_shows_settings_and_results(runs_dir: Path):
    build_whole_run(runs_dir / "one", seed=1)
    build_whole_run(runs_dir / "two", seed=2)
    output = invoke(runs_commands.app, "compare", "one", "two").output
    assert "seed" in output
    assert "measure-zero / sampled" in output


def test_clean_asks_first_and_no_means_no(runs_dir: Path):
    path = build_whole_run(runs_dir / "main")
    assert invoke(runs_commands.app, "clean", "main", answer="n\n").exit_code == 1
    assert (path / "run.json").exists()


def test_clean_keeps_the_report_when_told(runs_dir: Path):
    path = build_whole_run(runs_dir / "main")
    output = invoke(runs_commands.app, "clean", "main", "--keep-report", "--yes").output
    assert "1000 B freed" in output
    assert (path / "04-zero" / "metrics.jsonl").exists()
    assert not (path / "04-zero" / "checkpoint").exists()


def test_clean_deletes_a_whole_run(runs_dir: Path):
    path = build_whole_run(runs_dir / "main")
    assert invoke(runs_commands.app, "clean", "main", answer="y\n").exit_code == 0
    assert not path.exists()


def test_clean_says_which_paid_replies_would_go_and_keeps_them_with_the_report(runs_dir: Path):
    path = build_whole_run(runs_dir / "main")
    budget = Budget(path / "replies/rewriter", limit_usd=None)
    budget.settle(str(budget.reserve(9.0)), 1.25)
    invoke(runs_commands.app, "clean", "main", "--keep-report", "--yes")
    assert (path / "replies/rewriter/spent.jsonl").exists()
    for arguments, answer in (((), "n\n"), (("--yes",), "")):
        output = invoke(runs_commands.app, "clean", "main", *arguments, answer=answer).output
        assert "replies of endpoints for $1.25 among it" in " ".join(output.split())
    assert not path.exists()


def test_clean_never_deletes_what_is_no_run(runs_dir: Path):
    (runs_dir / "precious").mkdir(parents=True)
    assert isinstance(invoke(runs_commands.app, "clean", "precious", "--yes").exception, RunError)
    assert (runs_dir / "precious").exists()


class Clock:
    """A clock that a test turns by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def view(clock: Clock, *, terminal: bool) -> tuple[LiveView, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    return LiveView(console, clock=clock, plain_every_seconds=5.0), file


def test_without_a_terminal_a_line_comes_every_few_seconds():
    clock = Clock()
    live, file = view(clock, terminal=False)
    with live:
        live.start_stage("base", total_steps=12)
        for step in range(12):
            clock.seconds += 1.0
            live.log("base", step, {"loss": 2.0})
        live.end_stage("base")
    lines = file.getvalue().splitlines()
    # the first step, then five and ten seconds later, then the last step
    assert [line.split("step")[1].split("/")[0].strip() for line in lines[1:-1]] == ["1", "6", "11", "12"]
    assert lines[-1] == "base: done in 12.0s"
    assert "loss  2.0000" in lines[1]
    assert "\x1b" not in file.getvalue()


def test_eta_is_the_pace_times_what_is_left():
    progress = StageProgress(name="zero", total_steps=10, started_at=0.0)
    progress.take(0, {}, now=2.0)
    assert progress.eta_seconds(2.0) is None  # one step has no pace yet
    progress.take(4, {}, now=10.0)
    # four steps in eight seconds, five steps left
    assert progress.eta_seconds(10.0) == pytest.approx(10.0)


def test_a_continued_stage_counts_its_pace_from_where_it_began():
    progress = StageProgress(name="zero", total_steps=100, started_at=0.0)
    progress.take(90, {}, now=1.0)
    progress.take(91, {}, now=4.0)
    assert progress.steps_done == 92
    assert progress.eta_seconds(4.0) == pytest.approx(24.0)  # eight left, three seconds each


def test_a_stage_that_takes_more_steps_than_were_guessed_never_counts_past_its_end():
    progress = StageProgress(name="student-control", total_steps=3, started_at=0.0)
    progress.take(3, {}, now=1.0)
    assert "step 4/4" in plain_line(progress, now=1.0)


def test_a_number_that_comes_rarely_stays_in_view():
    progress = StageProgress(name="base", total_steps=10, started_at=0.0)
    progress.take(0, {"loss": 3.0, "val_bpb": 1.25}, now=1.0)
    progress.take(1, {"loss": 2.0}, now=2.0)
    assert progress.numbers() == [("loss", "2.0000"), ("bits/byte", "1.250")]
    assert "bits/byte   1.250" in plain_line(progress, now=2.0)


@pytest.mark.parametrize(("steps", "said"), [(1, "base: 1 step"), (1200, "base: 1,200 steps")])
def test_a_stage_says_how_many_steps_it_has(steps, said):
    live, file = view(Clock(), terminal=False)
    with live:
        live.start_stage("base", total_steps=steps)
    assert file.getvalue() == f"{said}\n"


def test_reinforcement_shows_reward_and_not_loss():
    labels = [column.label for column in columns_for({"reward": 1.0, "loss": 0.0})]
    assert labels == ["reward", "accuracy", "length", "thinks", "entropy"]


def test_on_a_terminal_every_stage_has_a_line_and_the_cursor_comes_back():
    clock = Clock()
    live, file = view(clock, terminal=True)
    with live:
        live.start_stage("base", total_steps=2)
        live.log("base", 0, {"loss": 2.5})
        live.log("base", 1, {"loss": 2.0})
        live.end_stage("base")
        live.start_stage("zero", total_steps=4)
        live.log("zero", 0, {"reward": 0.5, "think_share": 0.25})
    text = file.getvalue()
    assert "✓" in text
    assert "zero" in text
    assert "thinks 25%" in text
    assert text.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in text


def test_ctrl_c_leaves_the_terminal_as_it_was():
    live, file = view(Clock(), terminal=True)

    def interrupted() -> None:
        with live:
            live.start_stage("base", total_steps=2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "\x1b[?25h" in file.getvalue()


def test_tensorboard_reads_back_what_was_written(tmp_path: Path):
    sink = TensorBoardSink(tmp_path)
    sink.start_stage("zero", total_steps=2)
    sink.log("zero", 0, {"reward": 0.25, "loss": float("nan")})
    sink.log("zero", 1, {"reward": 0.5})
    sink.end_stage("zero")
    events = EventAccumulator(str(tmp_path / "zero")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward")] == [(0, 0.25), (1, 0.5)]
    assert events.Tags()["scalars"] == ["reward"]


def test_a_continued_run_replaces_the_steps_after_its_checkpoint(tmp_path: Path):
    for values in ({0: 1.0, 1: 1.0, 2: 1.0}, {1: 2.0, 2: 2.0}):
        sink = TensorBoardSink(tmp_path)
        for step, value in values.items():
            sink.log("base", step, {"loss": value})
        sink.close()
    events = EventAccumulator(str(tmp_path / "base")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(0, 1.0), (1, 2.0), (2, 2.0)]


def test_an_unused_sink_leaves_no_file(tmp_path: Path):
    sink = TensorBoardSink(tmp_path / "tensorboard")
    sink.start_stage("documents", total_steps=1)
    sink.end_stage("documents")
    assert not (tmp_path / "tensorboard").exists()
