"""`tenth judge-pairs ANSWERS --judge WHO --out PAIRS.jsonl`: preferences for `tenth reward-model`.

Why: nobody has 66,000 pairs; DeepSeek-R1 (arXiv:2501.12948v2, B.3.1) let a model judge them.
In:  a file of answers; a judge: a model on disk, a run, or an API's address with --model.
Out: the pairs, and their card beside them. Repeat the command to continue: what was judged is neither asked
nor paid for again.
Not here: the work (pipeline/judged_pairs.py), who can be asked (eval_targets.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tenth.cli.endpoint_options import Budget, Concurrency, KeyEnv, Prices, Timeout
from tenth.cli.eval_targets import opened, read_targets
from tenth.cli.progress import progress
from tenth.cli.tune_command import typed_command


def judge_pairs(
    answers: Annotated[
        Path,
        typer.Argument(
            metavar="ANSWERS",
            help=".jsonl, .json or .parquet: prompt, and answers (a list; each is compared with the next), "
            "first and second, or chosen and rejected, to be judged anew.",
        ),
    ],
    judge: Annotated[str, typer.Option(help="A model, a run, or an API's address (https://.../v1).")],
    out: Annotated[Path, typer.Option(help="The pairs, such as pairs.jsonl; a card lies beside them.")],
    margin: Annotated[
        float, typer.Option(help="Kept where the mean scores differ by more points of 10.")
    ] = 1.0,
    judgments: Annotated[int, typer.Option(help="Of each pair, half of them in the other order.")] = 4,
    balance_length: Annotated[
        bool,
        typer.Option(
            "--balance-length/--no-balance-length",
            help="Drop surplus pairs at random, until the longer answer wins as often as the shorter one.",
        ),
    ] = True,
    model: Annotated[str | None, typer.Option(help="The judge's name at its address.")] = None,
    key_env: KeyEnv[str | None] = None,
    prices: Prices[str | None] = None,
    budget: Budget = None,
    concurrency: Concurrency = 8,
    timeout: Timeout = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where judgments are kept. Default: beside the pairs.")
    ] = None,
) -> None:
    """Let a model judge answers in both orders, and write preference pairs for a reward model."""
    (target,) = read_targets(
        [judge],
        models=[model] if model else (),
        key_variables=[key_env] if key_env else (),
        prices=[prices] if prices else (),
        budget_usd=budget,
        concurrency=concurrency,
        timeout_seconds=timeout,
    )
    from tenth.pipeline.judged_pairs import PairSettings, make_pairs, read_answers, require_own

    settings = PairSettings(min_margin=margin, judgments=judgments, is_balanced=balance_length)
    require_own(out)
    found = read_answers(answers)
    kept = cache or out.with_name(f"{out.stem}-judgments")
    try:
        with opened(target, replies_dir=kept) as responder, progress(f"{target.name} judges") as tell:
            card = make_pairs(
                found,
                responder,
                settings,
                out=out,
                identity=target.identity,
                keep=None if target.endpoint else kept,
                at_once=max(64, 4 * concurrency),  # one part ends before the next one begins
                tell=tell,
            )
    except KeyboardInterrupt:
        typer.echo(f"Stopped; what was judged is kept. To continue: {typed_command()}", err=True)
        raise typer.Exit(130) from None
    _print_card(card, out)


def _print_card(card: Mapping[str, Any], out: Path) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    table.add_row("pairs in the file", f"{card['pairs']:,}")
    for rule, count in card["dropped"].items():
        table.add_row(f"  {rule}", f"-{count:,}")
    table.add_row("kept", f"{card['kept']:,}")
    lengths = [f"{card[f'mean_{side}_chars']:,.0f}" for side in ("chosen", "rejected")]
    table.add_row("mean characters, chosen and rejected", " and ".join(lengths))
    for name, key in (("before balancing", "longer_wins_before_balance"), ("of those kept", "longer_wins")):
        share = card[key]
        table.add_row(f"the longer answer wins, {name}", "-" if share is None else f"{share:.1%}")
    Console(highlight=False).print(table)
    typer.echo(f"The pairs are in {out}; to learn from them: tenth reward-model MODEL --data {out}")
    if card["judge"]["usd"]:
        typer.echo(f"The judgments cost ${card['judge']['usd']:.4f}.")
