"""JSON results as Markdown; nothing is measured or computed here that the JSON does not hold.

In:  what train.py and grpo.py wrote.  Out: text.
"""

from collections.abc import Mapping
from typing import Any


def training_table(result: Mapping[str, Any], grid: Mapping[str, Any]) -> str:
    """results/train.md"""
    lines = ["# Training against transformers", "", *_heading(result), ""]
    lines += [
        "One step = forward, next-token loss, backward, clipping, fused AdamW. tenth: bf16 over float32 masters. The",
        "peer runs at the best of its grid (below); where that says bf16 its weights are bf16 without masters, which is",
        "less work. MTP and balance loss off on both sides. Share = of the matrix-product peak of the data type,",
        "measured in the same run; ratio = median over rounds of peer seconds / our seconds.",
        "",
        "| shape, batch × tokens | share of peak | ratio (min–max) | tok/s | GFLOP/s | transformers tok/s | its share | its setting |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["shapes"].items():
        own, peer, ratio = row["ours"], row["peer"], row["ratio"]
        lines.append(
            f"| {name}, {row['batch']} × {row['tokens']} | **{own['peak_share']:.2f}** "
            f"| **{ratio['median']:.2f}** ({ratio['min']:.2f}–{ratio['max']:.2f}) | {own['tokens_per_s']:,} "
            f"| {own['gflop_per_s']:.0f} | {peer['tokens_per_s']:,} | {peer['peak_share']:.2f} "
            f"| {_setting(row['peer_settings'])} |"
        )
    lines += ["", "## The peer's grid", "", f"Scanned {grid['date'][:10]} at {grid['machine']['commit']}."]
    for name, trials in grid["shapes"].items():
        lines += ["", f"### {name}", "", *_grid_rows(trials)]
    return "\n".join(lines) + "\n"


def grpo_table(result: Mapping[str, Any], grid: Mapping[str, Any]) -> str:
    """results/grpo.md"""
    ratio, own, peer = result["ratio"], result["ours"], result["peer"]
    lines = ["# A GRPO step against TRL", "", *_heading(result), ""]
    lines += [
        "dense-5m, 8 prompts × 8 samples × 64 new tokens (forced), prompts of 32 tokens, beta 0, one optimizer step, the same",
        "reward on both sides. Step = sampling, reward, loss, backward, clipping, AdamW. TRL runs at the best of its",
        "grid (below), gradient checkpointing off.",
        "",
        "| | s per step | sampled tok/s | setting |",
        "|---|---|---|---|",
        f"| tenth | {own['median']:.3f} ({own['min']:.3f}–{own['max']:.3f}) | {own['tokens_per_s']:,} | bf16, float32 masters |",
        f"| TRL | {peer['median']:.3f} ({peer['min']:.3f}–{peer['max']:.3f}) | {peer['tokens_per_s']:,} "
        f"| {_setting(result['peer_settings'])} |",
        "",
        f"Ratio **{ratio['median']:.2f}** ({ratio['min']:.2f}–{ratio['max']:.2f}) over {len(ratio['rounds'])} rounds.",
        "",
        "## The peer's grid",
        "",
        f"Scanned {grid['date'][:10]} at {grid['machine']['commit']}.",
        "",
        *_grid_rows(grid["trials"]),
    ]
    return "\n".join(lines) + "\n"


def _heading(result: Mapping[str, Any]) -> list[str]:
    machine = result["machine"]
    return [
        f"`{result['command']}`, {result['date'][:10]}, commit {machine['commit']}. {machine['cpu']}, {machine['threads']} threads,",
        f"torch {machine['torch']}. Measured in this run: bf16 products {machine['bf16_gflop_per_s']:.0f} GFLOP/s, float32 'medium'",
        f"{machine['fp32_gflop_per_s']:.0f} GFLOP/s, memory read {machine['read_gb_per_s']:.0f} GB/s. Generated from the JSON beside it.",
    ]


def _setting(options: Mapping[str, Any]) -> str:
    names = {"is_compiled": "torch.compile", "keeps_memory": "kept memory"}
    words = [names.get(k, k) if v is True else f"{k} {v}" for k, v in options.items() if v]
    return ", ".join(words)


def _grid_rows(trials: list[Mapping[str, Any]]) -> list[str]:
    rows = ["| setting | s per step |", "|---|---|"]
    for trial in trials:
        seconds = f"{trial['seconds']:.3f}" if trial["seconds"] else f"failed: {trial['error']}"
        rows.append(
            f"| {_setting({**trial['options'], 'keeps_memory': trial['keeps_memory']})} | {seconds} |"
        )
    return rows
