"""Reading and converting a 20 GB checkpoint: how fast next to copying its files, and in how much memory.

Why: whoever has a directory of other people's weights should wait for the disk and for nothing else, on a
machine whose memory is smaller than the weights.
In:  a work directory with twice the size free.  Out: benchmarks/results/open-weights.json and a table.
Every run is a process of its own with a cold page cache (written out, then dropped: needs root); its memory
is the largest anonymous part that /proc showed, every 20 ms. Peers: `cp` of the same files onto the same disk
(reads and writes) and `cat` of them into nothing (reads only).
Not here: what the numbers in the tensors are; they are random and finite.
"""

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.machine import measure
from benchmarks.provenance import RESULTS, provenance
from benchmarks.rounds import spread
from tenth.checkpoint.names import expected_hf
from tenth.model.config import MlaConfig, ModelConfig, MoeConfig
from tenth.model.hf_config import to_hf

SHARD_BYTES = 4 * 10**9
_GB = 1e9


def synthetic(layers: int) -> ModelConfig:
    """DeepSeek-V2-Lite's widths with V3's router; 17 layers are 10 billion parameters."""
    return ModelConfig(
        name="synthetic",
        vocab_size=102400,
        hidden_size=2048,
        num_hidden_layers=layers,
        num_attention_heads=16,
        intermediate_size=10944,
        mla=MlaConfig(
            q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128
        ),
        moe=MoeConfig(
            n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6, moe_intermediate_size=1408
        ),
    )


def make_checkpoint(directory: Path, config: ModelConfig) -> None:
    """Shards written by hand: header, then slices of one random buffer."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    shards = list(_shards(expected_hf(config, mtp=False)))
    numbers = torch.randn(50_000_000, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()
    noise = memoryview(numbers.view(torch.uint8).numpy()).cast("B")
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(shard, name)
        _write_shard(directory / name, shard, noise)
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    values = to_hf(config, dtype="bfloat16", bos_token_id=0, eos_token_id=1)
    (directory / "config.json").write_text(json.dumps(values))


def _shards(shapes: dict[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    shard: dict[str, tuple[int, ...]] = {}
    size = 0
    for name, shape in shapes.items():
        num_bytes = 2 * int(torch.Size(shape).numel())
        if shard and size + num_bytes > SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += num_bytes
    yield shard


def _write_shard(path: Path, shapes: dict[str, tuple[int, ...]], noise: memoryview) -> None:
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 2 * int(torch.Size(shape).numel())
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while offset > 0:
            offset -= file.write(noise[:offset])


def read_everything(directory: Path) -> None:
    """Every tensor once, into memory of its own that is then let go: what loading does."""
    from tenth.checkpoint.safetensors_dir import SafetensorsDir

    source = SafetensorsDir(directory)
    for name in source.infos():
        source.read(name).clone()


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One process."""

    seconds: float
    anonymous_bytes: int  # the most that was seen


def run_cold(command: Sequence[str], *, keep: Path | None = None) -> Measured:
    """Run a command with a cold page cache. `keep`: what it writes, removed afterwards."""
    if keep is not None:
        _remove(keep)
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("1")
    began, most = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            most = max(most, _anonymous_bytes(process.pid))
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    seconds = time.perf_counter() - began
    if keep is not None:
        _remove(keep)
    return Measured(seconds=seconds, anonymous_bytes=most)


def _anonymous_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def commands(source: Path, work: Path) -> dict[str, tuple[list[str], Path | None]]:
    """Name -> command and what it writes."""
    files = [str(path) for path in sorted(source.glob("*.safetensors"))]
    copy, converted = work / "copy", work / "converted"
    return {
        "cat": (["cat", *files], None),
        "cp": (["cp", "-r", str(source), str(copy)], copy),
        "read": ([sys.executable, "-m", "benchmarks.open_weights", "--read", str(source)], None),
        "inspect": (["tenth", "inspect", str(source)], None),
        "convert to bf16": (["tenth", "convert", str(source), str(converted), "--dtype", "bf16"], converted),
        "convert to fp8": (["tenth", "convert", str(source), str(converted), "--dtype", "fp8"], converted),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--read", type=Path, help="only read this directory, in this process")
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache/tenth/bench-weights")
    parser.add_argument("--layers", type=int, default=17)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of runs, instead of all")
    asked = parser.parse_args()
    if asked.read:
        return read_everything(asked.read)
    source = asked.work / "source"
    make_checkpoint(source, synthetic(asked.layers))
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    runs = {name: run for name, run in commands(source, asked.work).items() if name in (asked.only or [name])}
    measured: dict[str, list[Measured]] = {name: [] for name in runs}
    for number in range(asked.rounds):
        for name, (command, keep) in runs.items():
            measured[name].append(run_cold(command, keep=keep))
            last = measured[name][-1]
            print(f"round {number + 1}: {name}: {last.seconds:.1f} s, {last.anonymous_bytes / _GB:.2f} GB")
    result = {
        **provenance("open_weights", measure()),
        "checkpoint_bytes": size,
        "runs": {name: _row(name, measured, size) for name in measured},
    }
    (RESULTS / "open-weights.json").write_text(json.dumps(result, indent=1) + "\n")
    shutil.rmtree(asked.work)
    return None


def _row(name: str, measured: dict[str, list[Measured]], size: int) -> dict[str, object]:
    runs = measured[name]
    row: dict[str, object] = {
        "seconds": spread(tuple(each.seconds for each in runs)),
        "anonymous_gb": round(max(each.anonymous_bytes for each in runs) / _GB, 3),
    }
    if name == "inspect":  # it reads headers: no bytes to compare
        return row
    row["gb_per_s"] = spread(tuple(size / each.seconds / _GB for each in runs))
    for peer in ("cp", "cat"):
        if peer in measured:
            ratios = (b.seconds / a.seconds for a, b in zip(runs, measured[peer], strict=True))
            row[f"speed_next_to_{peer}"] = spread(tuple(ratios))
    return row


if __name__ == "__main__":
    main()
