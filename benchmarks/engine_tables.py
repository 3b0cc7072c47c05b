"""engine.json as Markdown; nothing is measured here, and only prices are computed.

In:  what engine.py wrote, and the peers' grids.  Out: text.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from benchmarks.engine_cases import (
    LLAMA,
    LLAMA_FORMATS,
    LLAMA_MIXED,
    TENTH,
    TRANSFORMERS,
    usd_per_million_tokens,
)
from benchmarks.engine_quality import counts

Row = Mapping[str, Any]


def engine_table(result: Mapping[str, Any], grid: Mapping[str, Any]) -> str:
    """results/engine.md"""
    parts = (
        ["# The engine against llama.cpp and transformers", "", *_heading(result)],
        _cases(result),
        _aims(result.get("cases", {})),
        _quality(result.get("quality", {})),
        _prefix(result.get("prefix", {})),
        _speculation(result.get("speculation", {})),
        _settings(result.get("cases", {})),
        _grids(result.get("cases", {}), grid),
    )
    return "\n".join(line for part in parts if part for line in [*part, ""])


def _heading(result: Mapping[str, Any]) -> list[str]:
    machine, price = result["machine"], result["price_per_hour"]
    return [
        f"Last run: `{result['command']}`, {result['date'][:10]}, commit {machine['commit']}; each row names its own.",
        f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}. Generated from the JSON beside it.",
        "",
        "Same random weights and prompts on every side, greedy, each side in its own process, in turn within every",
        "round; a decode row is the median step after all prompts were read. llama.cpp's steps leave the choice of",
        "the token out, the others' include it. Each peer runs at the best of its grid (below), tenth at its defaults.",
        "Ratio: tenth's speed over the peer's in the same round, median (smallest–largest). Share: bytes of weights and",
        "cache that a step must read, times steps per second, over the read bandwidth measured just before the round;",
        "of experts the expected number that a batch visits. llama.cpp's files are pure (every matrix in the format);",
        '"mixed" is its quantiser\'s default for Q4_0, which keeps more bits in the head. Dollars: per million tokens of decoding at an assumed',
        f"${price:g} per hour for this machine, fully used.",
    ]


def _cases(result: Mapping[str, Any]) -> list[str]:
    rows = result.get("cases", {})
    if not rows:
        return []
    lines = [
        "| shape, weights, case | tenth tok/s | share | $/M | × llama.cpp | llama.cpp tok/s | share | × transformers | transformers tok/s | read GB/s | commit |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows.values():
        is_prefill = row["new_tokens"] == 1
        own = row["sides"][TENTH]
        rate = own["tokens_per_s"]["median"]
        price = usd_per_million_tokens(rate, price_per_hour=result["price_per_hour"])
        what = f"prefill {row['prompt_tokens']}" if is_prefill else f"batch {row['batch']}"
        cells = [
            f"{row['shape']}, {row['weights']}, {what}",
            f"**{_number(rate)}**",
            _share(own),
            "" if is_prefill else f"{price:.3f}",
            _both(_ratio, row),
            _both(_rate, row),
            _share(row["sides"].get(LLAMA, {})),
            _ratio(row, TRANSFORMERS),
            _rate(row, TRANSFORMERS),
            f"{row['read_gb_per_s']['median']:.0f}",
            row["commit"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _aims(rows: Mapping[str, Row]) -> list[str]:
    lines = []
    for name, row in rows.items():
        for peer, aim in row["aims"].items():
            if peer in row["ratios"]:
                lines.append(_aim(f"{name}, × {peer}", aim, row["ratios"][peer]["median"]))
        if row["bandwidth_aim"] is not None:
            share = row["sides"][TENTH]["bandwidth_share"]["median"]
            lines.append(_aim(f"{name}, share of bandwidth", row["bandwidth_aim"], share))
    return ["## Aims", "", "| row | at least | measured | |", "|---|---|---|---|", *lines] if lines else []


def _aim(name: str, aim: float, value: float) -> str:
    return f"| {name} | {aim:g} | {value:.2f} | {'reached' if value >= aim else 'missed'} |"


def _quality(models: Mapping[str, Row]) -> list[str]:
    if not models:
        return []
    lines = [
        "## Quality of the small weights",
        "",
        "KL divergence in nats per token from the bf16 weights computed in float32, on text, token by token. A",
        "quantised row counts where ours is not above the peer's at no more bits per weight.",
        "",
        "| model, text | format | bits per weight | KL mean | KL 99th percentile | same likeliest token | counts against |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, model in models.items():
        rows = model["rows"]
        for label, row in rows.items():
            weights = label.removeprefix(f"{TENTH} ")
            verdict = ", ".join(
                f"{'yes' if counts(row, rows[peer]) else 'no'} ({peer.removeprefix(LLAMA).strip()})"
                for peer in rivals(weights)
                if peer in rows
            )
            lines.append(
                f"| {name}, {row['tokens']} tokens of {model['text']} | {label} | {row['bits_per_weight']:.2f} "
                f"| {row['kl_mean']:.2e} | {row['kl_p99']:.2e} | {row['same_top_share']:.3f} | {verdict} |"
            )
    return lines


def rivals(weights: str) -> list[str]:
    """The peer's rows that a quantised row of ours is measured against."""
    formats = [kinds for kinds in LLAMA_FORMATS.values() if weights != "bf16"]
    return [f"{LLAMA} {kind}" for kinds in formats for ours, kind in kinds.items() if ours == weights]


def _prefix(rows: Mapping[str, Row]) -> list[str]:
    if not rows:
        return []
    lines = [
        "## Prefix cache",
        "",
        "Time to the first token, alone on the engine; a hit shares its first tokens with an earlier prompt.",
        "",
        "| shape | shared + own tokens | cold s | hit s | hit / cold |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        cold, hit, part = (row[key]["median"] for key in ("cold_seconds", "hit_seconds", "hit_per_cold"))
        tokens = f"{row['shared_tokens']} + {row['own_tokens']}"
        lines.append(f"| {name} | {tokens} | {cold:.3f} | {hit:.3f} | **{part:.3f}** |")
    return lines


def _speculation(models: Mapping[str, Row]) -> list[str]:
    if not models:
        return []
    lines = [
        "## Speculation with the model's own MTP module, one sequence",
        "",
        "| model | temperature | acceptance | × without | tok/s | without | same text |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, model in models.items():
        for label, row in model["rows"].items():
            rate, ratio = row["tokens_per_s"], row["ratio"]
            lines.append(
                f"| {name} | {label.removeprefix('temperature ')} | {row['acceptance']:.2f} | **{ratio['median']:.2f}** "
                f"({ratio['min']:.2f}–{ratio['max']:.2f}) | {rate['mtp']:.0f} | {rate['none']:.0f} "
                f"| {'yes' if row['is_same_text'] else 'no'} |"
            )
    return lines


def _settings(rows: Mapping[str, Row]) -> list[str]:
    lines = [
        f"| {name} | {peer} | {_words(options)} | {row['agreement'].get(peer, '')} |"
        for name, row in rows.items()
        for peer, options in row["settings"].items()
    ]
    if not lines:
        return []
    about = [
        "## The peers' settings",
        "",
        "Agreement: mean share of a text until the peer's greedy choice leaves ours; rounding parts them at some token.",
    ]
    return [*about, "", "| row | peer | settings | agreement |", "|---|---|---|---|", *lines]


def _grids(rows: Iterable[str], grid: Mapping[str, Any]) -> list[str]:
    scanned = {name: peers for name, peers in grid.get("cases", {}).items() if name in rows}
    if not scanned:
        return []
    lines = [
        "## The peers' grids",
        "",
        f"Scanned {grid['date'][:10]} at {grid['machine']['commit']}: every value of every setting, one after another on",
        "top of the best so far; milliseconds of a decode step, or of the prompt.",
    ]
    for name, peers in scanned.items():
        lines += ["", f"### {name}", "", "| peer | settings | ms |", "|---|---|---|"]
        for peer, trials in peers.items():
            for trial in trials:
                seconds = trial["seconds"]
                told = f"{1e3 * seconds:.2f}" if seconds else f"failed: {trial['error']}"
                lines.append(f"| {peer} | {_words(trial['options'])} | {told} |")
    return lines


def _words(options: Mapping[str, Any]) -> str:
    def word(key: str, value: Any) -> str:
        if isinstance(value, bool):
            return f"{'' if value else 'no '}{key.removeprefix('is_').replace('_', ' ')}"
        return f"{key} {value}"

    return ", ".join(word(key, value) for key, value in options.items())


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _rate(row: Row, peer: str) -> str:
    return _number(row["sides"][peer]["tokens_per_s"]["median"]) if peer in row["sides"] else ""


def _ratio(row: Row, peer: str) -> str:
    if peer not in row["ratios"]:
        return ""
    ratio = row["ratios"][peer]
    return f"**{ratio['median']:.2f}** ({ratio['min']:.2f}–{ratio['max']:.2f})"


def _both(cell: Callable[[Row, str], str], row: Row) -> str:
    """llama.cpp's cell, and behind it that of its default mixture where the row has one."""
    mixed = cell(row, LLAMA_MIXED)
    return cell(row, LLAMA) + (f"; mixed {mixed}" if mixed else "")


def _share(side: Mapping[str, Any]) -> str:
    return f"{side['bandwidth_share']['median']:.2f}" if "bandwidth_share" in side else ""
