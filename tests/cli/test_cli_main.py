import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tenth.base.errors import RunError
from tenth.cli import main
from tenth.cli import run as run_module

COMMANDS = (
    *("run", "rl", "sft", "runs", "report", "chat", "inspect", "convert", "quantize", "export"),
    *("tasks", "init", "freeze"),
)
SMOKE = Path(__file__).parents[2] / "recipes" / "tiny" / "smoke.toml"


def tenth(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tenth.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_help_names_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; from tenth.cli.main import commands\n"
        "try: commands(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'tokenizers', 'safetensors', 'tensorboard'}\n"
        "print('HEAVY', sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("HEAVY []")
    for command in [*COMMANDS, "version"]:
        assert f" {command} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    done = CliRunner().invoke(main.commands, [command, "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.stdout


def test_the_version_is_printed():
    assert CliRunner().invoke(main.commands, ["version"]).stdout.strip() == "0.4.0"


def test_what_a_user_can_mend_is_one_sentence_and_exit_code_1(tmp_path):
    done = tenth("run", str(tmp_path / "no.toml"))
    expected = (
        f"{tmp_path / 'no.toml'} is neither a recipe nor a run; `tenth init` writes a recipe to start from, "
        "`tenth runs` lists the runs.\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


def test_ctrl_c_before_a_command_begins_is_exit_code_130(monkeypatch):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "commands", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main.app()
    assert stopped.value.code == 130


def test_an_unknown_key_is_one_sentence_with_the_nearest_name(tmp_path):
    done = tenth("run", str(SMOKE), "rl.step=3", "--runs-dir", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == f"{SMOKE}: unknown key 'rl.step'; did you mean 'steps'?\n"
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_ours_shows_its_traceback(monkeypatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(run_module, "_run", broken)
    done = CliRunner().invoke(main.commands, ["run", "x.toml"])
    assert isinstance(done.exception, ZeroDivisionError)


def test_an_error_of_ours_reaches_the_entry_point_as_a_sentence(monkeypatch, capsys):
    def refused() -> None:
        raise RunError("the disk is full; free some space.")

    monkeypatch.setattr(main, "commands", refused)
    with pytest.raises(SystemExit) as caught:
        main.app()
    assert caught.value.code == 1
    assert capsys.readouterr().err == "the disk is full; free some space.\n"


def test_ctrl_c_says_what_to_type_to_continue(monkeypatch):
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "_run", interrupted)
    done = CliRunner().invoke(main.commands, ["run", "a b.toml", "seed=2", "--runs-dir", "elsewhere"])
    assert done.exit_code == 130
    assert done.stderr == (
        "Stopped; all that was saved is kept. To continue: tenth run 'a b.toml' seed=2 --runs-dir elsewhere\n"
    )


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_in_the_middle_of_a_run_leaves_a_run_that_can_be_continued(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tenth.cli.main",
        "run",
        str(SMOKE),
        "--plain",
        "--runs-dir",
        str(tmp_path),
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background hands down an ignored Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("base: "):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("Stopped; all that was saved is kept. To continue: tenth run ")
    assert (tmp_path / "smoke" / "01-documents" / "DONE.json").exists()
    assert not (tmp_path / "smoke" / "02-base" / "DONE.json").exists()


def test_processor_settings_are_applied_before_the_pipeline_is_imported():
    source = Path(run_module.__file__).read_text()
    assert source.index("tune_process()  #") < source.index("import Call, run_flow")


@pytest.mark.parametrize(
    ("command", "part"),
    [("chat", "{MODEL|RUN}"), ("report", "{RUN}..."), ("reward-model", "Keys and defaults: epochs=1")],
)
def test_help_names_what_is_wanted(command, part):
    done = CliRunner().invoke(main.commands, [command, "--help"], env={"COLUMNS": "120"})
    assert part in done.output
