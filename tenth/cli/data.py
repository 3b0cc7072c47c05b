"""`tenth data prepare FILE... --out DIR` and `tenth data check FILE...`: a corpus of one's own, and its card.

In:  .txt, .jsonl, .json (also .gz) or .parquet files, evaluation files to keep out, `key=value` settings.
Out: a directory that is whole or not there; tables; exit code 1 where `check` finds what must not be.
Not here: the judging (data/survey.py), the card (data/card.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tenth.base.errors import ConfigError

if TYPE_CHECKING:
    from tenth.data.check import Findings
    from tenth.data.prepare import PrepareSettings
    from tenth.data.user_rows import Item

app = typer.Typer(
    help="Your own data: repeats, test questions and leaks out, a card beside it.", no_args_is_help=True
)

_KEYS = (
    "Keys and defaults: validation_share=0.01, near_threshold=0.8, min_characters=1, "
    "max_characters=16777216, solutions=false, fim_rate=0, seed=0.\n\nWithout one: ignore, tokenizer."
)
_TEMPLATE_SHARE = 0.1  # of the rows with the same ten words of a test: hardly by chance
Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE... [KEY=VALUE]...", help="Files, then settings."),
]
Against = Annotated[
    list[Path] | None,
    typer.Option(help="Evaluation files, or directories of them, to keep out; may be repeated."),
]


@app.command("prepare", epilog=_KEYS)
def prepare_command(
    files: Files,
    out: Annotated[Path, typer.Option(help="The directory to write; it must not exist.")],
    against: Against = None,
    licence: Annotated[
        list[str] | None, typer.Option(help="Of all files, or repeated for each file in order.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")] = False,
) -> None:
    """Drop repeats and test questions, split without leaks, write a data card."""
    from tenth.checkpoint.whole_dir import whole_directory
    from tenth.data.prepare import FILES, prepare

    paths, settings = _read_arguments(files)
    _require_free(out, names=FILES, may_replace=overwrite)
    with whole_directory(out.absolute()) as directory:
        card = prepare(
            directory,
            paths,
            against=against or (),
            licences=licence or (),
            settings=settings,
            held_out=_held_out,
        )
    _print_card(card, out)


@app.command("check", epilog=_KEYS)
def check_command(files: Files, against: Against = None) -> None:
    """Look for leaks, test questions and broken rows; each file counts as one part. Writes nothing."""
    from tenth.data.check import check

    paths, settings = _read_arguments(files)
    findings = check(paths, against=against or (), settings=settings, held_out=_held_out)
    _print_findings(findings)
    if not findings.is_clean:
        raise typer.Exit(1)


def _read_arguments(words: Sequence[str]) -> tuple[list[Path], "PrepareSettings"]:
    """Files and settings; a file whose name holds `=` is a file when it exists."""
    from tenth.base.config import apply_overrides, build_recipe
    from tenth.data.prepare import PrepareSettings

    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    paths = [Path(word) for word in words if word not in overrides]
    if not paths:
        raise ConfigError(f"no file among {list(words)}; name a .txt, .jsonl, .json or .parquet file.")
    twice = next((path for number, path in enumerate(paths) if path in paths[:number]), None)
    if twice:
        raise ConfigError(f"{twice} is named twice; name it once.")
    settings = build_recipe(PrepareSettings, apply_overrides({}, overrides), source="tenth data")
    return paths, settings


def _require_free(out: Path, *, names: Sequence[str], may_replace: bool) -> None:
    """Nothing of somebody's is replaced: only what this command wrote, and only when asked to."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not may_replace:
        raise ConfigError(f"{out} exists; choose another directory, or add --overwrite to replace it.")
    others = [] if out.is_dir() else [out.name]
    others += sorted(file.name for file in out.iterdir() if file.name not in names) if out.is_dir() else []
    if others:
        raise ConfigError(
            f"{out} holds '{others[0]}', which `tenth data prepare` did not write; choose another directory."
        )


def _held_out(item: "Item") -> str | None:
    """Whether a row is a question that the generated families keep for tests."""
    from tenth.base.files import text_hash
    from tenth.tasks.generated import FAMILIES
    from tenth.tasks.task import Split, split_of

    family = item.values.get("task") or item.values.get("domain")
    if not isinstance(family, str) or family not in FAMILIES or not item.prompt:
        return None
    split = split_of(text_hash(family, item.prompt))
    return None if split is Split.TRAIN else f"{family} keeps this question for {split}"


def _console() -> Console:
    return Console(highlight=False, markup=False, soft_wrap=True)


def _print_card(card: Mapping[str, Any], out: Path) -> None:
    console = _console()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "rows", "characters", "tokens"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("read", f"{card['rows_read']:,}")
    for rule, count in card["dropped"].items():
        table.add_row(f"  {rule}", f"-{count:,}")
    for name, part in card["parts"].items():
        tokens = "" if part["tokens"] is None else f"{part['tokens']:,}"
        table.add_row(name, f"{part['rows']:,}", f"{part['characters']:,}", tokens)
    console.print(table)
    if not card["decontamination"]["done"]:
        console.print("Not decontaminated: no evaluation files were named; --against names them.")
    console.print(f"The files are in {out}; its card.md says what was dropped and why.")


def _print_findings(findings: "Findings") -> None:
    console = _console()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("file", "rows", "kinds"):
        table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold")
    for file in findings.files:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(file.kinds.items()))
        table.add_row(str(file.path), f"{file.num_rows:,}", kinds)
    console.print(table)
    for name, num_texts, count in findings.test_hits:
        console.print(f"against {name} ({num_texts:,} texts): {count:,} rows hit")
    if not findings.test_hits:
        console.print("Not compared with any evaluation file; --against names them.")
    words, count = findings.phrase
    if count >= _TEMPLATE_SHARE * sum(file.num_rows for file in findings.files):
        console.print(f"{count:,} rows hold '{words}': a template of yours? ignore=\"...\" says so")
    lineage = findings.lineage.shown()
    if lineage["with_lineage"] or lineage["without_lineage"]:
        missing = "".join(f", {count:,} without {name}" for name, count in lineage["missing"].items())
        console.print(
            f"synthetic: {lineage['with_lineage']:,} rows with lineage{missing}; "
            f"{lineage['without_lineage']:,} claim to be and have none"
        )
    for problem in findings.problems:
        console.print(f"{'LEAK' if problem.is_leak else 'note'}  {problem.name}: {problem.count:,} rows")
        for example in problem.examples:
            console.print(f"        {_one_line(example)}")
    console.print("No leak found." if findings.is_clean else "Mend these, or run tenth data prepare.")


def _one_line(text: str) -> str:
    """Somebody's text without what could move a cursor."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown if len(shown) <= 300 else f"{shown[:297]}..."
