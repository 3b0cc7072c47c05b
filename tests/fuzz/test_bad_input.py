"""Damaged and hostile checkpoints on the command line: exit code 1, one sentence, nothing half-written."""

import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fuzz_readers import LLAMA, vocabulary, write_sharded
from safetensors.torch import load_file, save_file

from tenth.checkpoint.model_dir import save_model
from tenth.cli.main import app
from tenth.model.transformer import Transformer, initialise
from tenth.native import process
from tenth.pipeline import machine

SHARD = "model-00001-of-*.safetensors"
COMMANDS = {
    "inspect": ("inspect", "model"),
    "convert": ("convert", "model", "out"),
    "convert to GGUF": ("convert", "model", "out.gguf"),
    "export": ("export", "model", "--type", "q8_0", "--out", "out.gguf"),
    "chat": ("chat", "model"),
    "rl": ("rl", "model", "--tasks", "tasks.jsonl", "--out", "out", "--steps", "1", "--plain"),
    "sft": ("sft", "model", "--data", "data.jsonl", "--out", "out", "--steps", "1", "--plain"),
}
LOADING = tuple(COMMANDS)[1:]  # `inspect` reads no number


def shard_of(directory: Path) -> Path:
    return next(directory.glob(SHARD))


def change_shard(directory: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = load_file(shard_of(directory))
    name = next(iter(tensors))
    save_file({**tensors, name: change(tensors[name].clone())}, shard_of(directory))


def change_json(path: Path, **changed: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def first_is(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[0] = value
        return tensor

    return change


def cut_off(directory: Path) -> None:
    os.truncate(shard_of(directory), shard_of(directory).stat().st_size - 100)


def name_a_file_elsewhere(directory: Path) -> None:
    index = directory / "model.safetensors.index.json"
    shard_of(directory).rename(directory.parent / "elsewhere.safetensors")
    index.write_text(index.read_text().replace(next(iter(weight_files(index))), "../elsewhere.safetensors"))


def weight_files(index: Path) -> set[str]:
    return set(json.loads(index.read_text())["weight_map"].values())


def nest(directory: Path) -> None:
    shard_of(directory).write_bytes((500_000).to_bytes(8, "little") + b'{"a":' * 100_000)


def announce(directory: Path) -> None:
    shard_of(directory).write_bytes((1 << 62).to_bytes(8, "little") + bytes(100))


def take_shards_away(directory: Path) -> None:
    for file in directory.glob("model*"):
        file.unlink()


def pickle_as(name: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        take_shards_away(directory)
        torch.save({"a": torch.ones(1)}, directory / name)

    return change


def shrink_the_embedding(directory: Path) -> None:
    take_shards_away(directory)
    config = replace(LLAMA, vocab_size=vocabulary().vocab_size - 1)
    model = initialise(Transformer(config), generator=torch.Generator().manual_seed(0))
    save_model(directory, model, tokenizer=vocabulary())


def reach_for_internals(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text(
        "{% for each in ''.__class__.__mro__[1].__subclasses__() %}{{ each('/etc/passwd') }}{% endfor %}"
    )


DAMAGES: dict[str, tuple[Callable[[Path], None], str, tuple[str, ...]]] = {
    "missing shard": (lambda d: shard_of(d).unlink(), "is missing", tuple(COMMANDS)),
    "truncated shard": (cut_off, "is cut off: its header tells of", tuple(COMMANDS)),
    "index elsewhere": (name_a_file_elsewhere, "no safetensors file of this directory", tuple(COMMANDS)),
    "header bomb": (announce, "announces a header of 4,611,686,018,427,387,904", tuple(COMMANDS)),
    "nested header": (nest, "is not valid JSON", tuple(COMMANDS)),
    "wrong shape": (lambda d: change_shard(d, lambda t: t[:-1].clone()), "shape", LOADING),
    "NaN": (lambda d: change_shard(d, first_is(torch.nan)), "holds NaN", LOADING),
    "infinite": (lambda d: change_shard(d, first_is(torch.inf)), "infinite", LOADING),
    "unknown architecture": (
        lambda d: change_json(d / "config.json", model_type="mamba", architectures=["MambaForCausalLM"]),
        "MambaForCausalLM.* is not known; known: DeepseekV3ForCausalLM",
        tuple(COMMANDS),
    ),
    ".bin": (pickle_as("pytorch_model.bin"), "is a pickle, .*save_pretrained", tuple(COMMANDS)),
    ".pt": (pickle_as("consolidated.00.pt"), "is a pickle, .*save_pretrained", tuple(COMMANDS)),
    "large tokenizer": (
        shrink_the_embedding,
        "tokenizer has 300 tokens .* 299",
        LOADING,
    ),
    "hostile template": (reach_for_internals, "template", ("chat", "rl", "sft")),
}
CASES = [(command, name) for name, (_, _, commands) in DAMAGES.items() for command in commands]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A model that every command takes, a file of problems and one of conversations."""
    place = tmp_path_factory.mktemp("bad")
    write_sharded(place)
    rows = [{"prompt": f"What is {n}+{n}?", "answer": str(2 * n)} for n in range(20)]
    (place / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"prompt": row["prompt"], "completion": row["answer"]} for row in rows]
    (place / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


@pytest.fixture
def place(sound, tmp_path, monkeypatch):
    """A copy to damage, where the command is typed."""
    subprocess.run(["cp", "-r", *sorted(sound.iterdir()), str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "tune_process", lambda: None)  # it would hold for all tests
    monkeypatch.setattr(machine, "measure_peak", lambda _dtype: 1e9)  # seconds, for a run's account
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is 1+1?\n"))
    return tmp_path


def typed(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `tenth ...`; whatever else it raises goes on."""
    monkeypatch.setattr(sys, "argv", ["tenth", *arguments])
    with pytest.raises(SystemExit) as raised:
        app()
    return int(raised.value.code or 0)


def assert_nothing_half_written(place: Path) -> None:
    left = [str(path.relative_to(place)) for path in place.rglob("*")]
    assert not [name for name in left if "partial" in name or "unfinished" in name or "replaced" in name]
    assert not (place / "out" / "model").exists()
    assert not list(place.glob("out*/*.safetensors")) + list(place.glob("*.gguf"))


@pytest.mark.parametrize(("command", "damage"), CASES)
def test_bad_input_is_one_sentence_and_leaves_nothing(command, damage, place, monkeypatch, capsys):
    change, sentence, _ = DAMAGES[damage]
    change(place / "model")
    capsys.readouterr()
    assert typed(COMMANDS[command], monkeypatch) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert errors.endswith(".\n")
    assert len(errors) < 1000
    assert re.search(sentence, errors), errors
    assert_nothing_half_written(place)


@pytest.mark.parametrize("command", ["convert", "export"])
def test_a_full_disk_in_the_middle_is_one_sentence_and_leaves_nothing(command, place):
    """The limit on the size of a file stands for the disk."""

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    done = subprocess.run(
        [sys.executable, "-m", "tenth.cli.main", *COMMANDS[command]],
        capture_output=True, text=True, check=False, cwd=place, preexec_fn=fill,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert_nothing_half_written(place)
    assert not (place / "out").exists()


def test_whole_models_are_taken_by_every_command(place, monkeypatch, capsys):
    """Else nothing above would prove anything."""
    for command in ("inspect", "convert", "export", "chat"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("What is 1+1?\n"))
        assert typed(COMMANDS[command], monkeypatch) == 0, command
