"""The sections of the report that speak of results: headline, gain, scores, curves.

Why: each section is a function from what was read to markup, or None when there is nothing to say yet, so a
run in any state makes a page.
In:  `Facts`, everything read from the run directory once.
Out: `Html`.
Not here: answers (answers.py), cost, settings and findings (appendix.py), frame and style (page.html).
"""

from collections.abc import Sequence

from tenth.base.units import show_seconds
from tenth.reports import figures, panels
from tenth.reports.aims import Aim, check_aims
from tenth.reports.doctor import Rows
from tenth.reports.facts import Facts
from tenth.reports.gain import Gain, explain_gain
from tenth.reports.markup import Html, element, join, table
from tenth.reports.runs import BASE, TUNED_BY_EXAMPLE, TUNED_BY_REWARD, ZERO
from tenth.reports.scores import BASE_WAYS, MODE_LABELS, SAMPLED, Evaluation, Score
from tenth.reports.seeds import base_pass_at_16


def headline(facts: Facts) -> Html:
    """The name and the numbers that matter most."""
    info = facts.run.info
    made = " · ".join(
        str(part)
        for part in (info.get("created"), f"commit {str(info.get('commit') or 'unknown')[:10]}")
        if part
    )
    tiles = [tile for tile in (_base_tile(facts), _zero_tile(facts), _rise_tile(facts)) if tile]
    for label, value in (("guessing", _guess(facts)), ("base, pass@16", _pass_at_16(facts))):
        if value is not None:
            tiles.append(
                tile(label, f"{value:.1%}", "mean over families" if label == "guessing" else "not pass@1")
            )
    if facts.total.seconds is not None:
        paid = f"${facts.total.usd:.2f}" if facts.total.usd is not None else "no price set"
        tiles.append(tile("whole run", show_seconds(facts.total.seconds), paid))
    return join(
        [
            element("h1", facts.run.name),
            element("p", made, class_="muted"),
            element("div", *tiles, class_="tiles"),
            None
            if facts.zero
            else element("p", "R1-Zero is not measured yet; this page shows the run so far."),
        ]
    )


def gain_section(facts: Facts) -> Html | None:
    """Where the gain comes from, with the formula."""
    gain = explain_gain(facts.base, facts.zero) if facts.base and facts.zero else None
    if gain is None:
        return None
    return join(
        [
            element("h2", "Where the gain comes from"),
            figure(figures.draw_gain(gain), narrow=True),
            _gain_words(gain),
            element(
                "p",
                "Readable answers: what the sampled base loses to answers nobody can read, if those were "
                "right as often as the readable ones. Choosing to think: the base forced to think, minus the "
                "base sampled, minus that. New ability: R1-Zero sampled minus the base forced to think. "
                "The three add up to the rise; a part may be negative.",
                class_="note",
            ),
        ]
    )


def aims_section(facts: Facts) -> Html | None:
    """The aims of the main run, reached or not."""
    if facts.base is None or facts.zero is None:
        return None
    seconds = facts.total.seconds if facts.total.is_done else None  # half a run is always in time
    aims = check_aims(facts.base, facts.zero, seconds=seconds)
    return join([element("h2", "Aims"), aims_table(aims)])


def aims_table(aims: Sequence[Aim]) -> Html:
    """Each aim, what was measured, reached or not."""
    rows = [
        (
            aim.text,
            aim.measured,
            element(
                "span",
                *(("reached",) if aim.is_reached else ("not reached",)),
                class_="good" if aim.is_reached else "bad",
            ),
        )
        for aim in aims
    ]
    return table(("aim", "measured", ""), rows, class_="words")


def scores_section(facts: Facts) -> Html | None:
    """Families × modes with intervals, and the same as bars."""
    columns = _columns(facts)
    if not columns:
        return None
    families = sorted({family for _, _, e in columns for family in e.families})
    guess = columns[0][2].guess
    rows = [_score_row("all", columns, guess=columns[0][2].mean_guess, family=None)]
    rows += [_score_row(family, columns, guess=guess.get(family), family=family) for family in families]
    first = columns[0][2].score(columns[0][1])
    settings = columns[0][2].settings
    return join(
        [
            element("h2", "Scores on held-out problems"),
            figure(figures.draw_families(facts.base, facts.zero)),
            table(("family", *(label for label, _, _ in columns), "guessing"), rows),
            element(
                "p",
                f"pass@1 in %, mean over {first.samples if first else '?'} samples per problem, 95% "
                f"interval below it. Temperature {settings.get('temperature', '?')}, "
                f"top-p {settings.get('top_p', '?')}, "
                f"up to {settings.get('max_new_tokens', '?')} new tokens, seed {settings.get('seed', '?')}.",
                class_="note",
            ),
            _behaviour_table(columns),
        ]
    )


def levels_section(facts: Facts) -> Html | None:
    """Accuracy by difficulty."""
    drawn = figures.draw_levels(facts.base, facts.zero)
    if drawn is None:
        return None
    return join(
        [
            element("h2", "Accuracy by level"),
            figure(drawn),
            element(
                "p",
                "A level is the size of a problem inside its family. Right of the dashed line the problems "
                "are longer than any that the base's documents solve.",
                class_="note",
            ),
        ]
    )


def controls_section(facts: Facts) -> Html | None:
    """The controls at equal tokens beside base and R1-Zero."""
    if facts.controls is None:
        return None
    shown: list[tuple[str, Score | None]] = [("base, sampled", _score(facts.base, SAMPLED))]
    shown += [
        (f"control: {MODE_LABELS.get(mode, mode)}", scores.overall)
        for mode, scores in facts.controls.modes.items()
    ]
    shown.append(("R1-Zero", _score(facts.zero, SAMPLED)))
    rows = [
        (label, _accuracy_cell(score), _percent(score.think_share), _number(score.mean_tokens))
        for label, score in shown
        if score is not None
    ]
    within_reach = _pass_at_16(facts)
    if within_reach is not None:
        rows.append(("base, solved by one of 16 samples (pass@16)", _percent(within_reach), "–", "–"))
    head = ("", "accuracy", "share that thinks", "tokens per answer")
    return join([element("h2", "Controls at equal tokens"), table(head, rows)])


def zero_curves_section(facts: Facts) -> Html | None:
    """What happened during reinforcement learning."""
    rows = facts.run.metrics(ZERO) or facts.run.metrics(TUNED_BY_REWARD)
    return _curves(
        "Reinforcement learning",
        rows,
        [
            ("", panels.REWARD_PANELS, 3),
            ("How the answers change", panels.behaviour_panels(facts.run.corpus_reflection_per_1k()), 3),
            ("Training accuracy per family", panels.family_panels(rows), 4),
        ],
    )


def base_curves_section(facts: Facts) -> Html | None:
    """What happened during pre-training, or while somebody's model learnt from examples."""
    rows = facts.run.metrics(BASE)
    title = "Pre-training the base" if rows else "Supervised fine-tuning"
    rows = rows or facts.run.metrics(TUNED_BY_EXAMPLE)
    return _curves(title, rows, [("", panels.PRETRAIN_PANELS, 2)])


def _columns(facts: Facts) -> list[tuple[str, str, Evaluation]]:
    columns = []
    if facts.base:
        columns = [
            (f"base, {MODE_LABELS[mode]}", mode, facts.base) for mode in BASE_WAYS if facts.base.score(mode)
        ]
    if facts.zero and facts.zero.score(SAMPLED):
        columns.append(("R1-Zero", SAMPLED, facts.zero))
    return columns


def _score_row(
    name: str,
    columns: Sequence[tuple[str, str, Evaluation]],
    *,
    guess: float | None,
    family: str | None,
) -> list[object]:
    cells = [_accuracy_cell(evaluation.score(mode, family)) for _, mode, evaluation in columns]
    label = element("b", "all families") if family is None else name
    return [label, *cells, _percent(guess)]


def _behaviour_table(columns: Sequence[tuple[str, str, Evaluation]]) -> Html:
    head = (
        "how it answers, in %",
        "well-formed",
        "readable",
        "thinks",
        "tokens",
        "reflection words per 1,000 tokens",
        "truncated",
        "verifier errors",
        "majority vote",
        "pass@k",
    )
    rows = []
    for label, mode, evaluation in columns:
        score = evaluation.modes[mode].overall
        best = max(score.pass_at, default=None)
        rows.append(
            (
                label,
                _percent(score.format),
                _percent(score.readable),
                _percent(score.think_share),
                _number(score.mean_tokens),
                _number(score.reflection_per_1k),
                _percent(score.truncated),
                _percent(score.verifier_errors),
                _percent(score.majority),
                f"{score.pass_at[best] * 100:.1f} @{best}" if best is not None else "–",
            )
        )
    return table(head, rows)


def _curves(title: str, rows: Rows, groups: Sequence[tuple[str, Sequence[panels.Panel], int]]) -> Html | None:
    slug = title.lower().replace(" ", "-")
    drawn = [
        (heading, figures.draw_curves(rows, group, name=f"{slug}-{i}", columns=columns))
        for i, (heading, group, columns) in enumerate(groups)
    ]
    parts = [part for heading, svg in drawn if svg for part in (_heading(heading), figure(svg))]
    return join([element("h2", title), *parts]) if parts else None


def _heading(text: str) -> Html | None:
    return element("h3", text) if text else None


def _base_tile(facts: Facts) -> Html | None:
    score = _score(facts.base, SAMPLED)
    return (
        tile("base, sampled", f"{score.accuracy:.1%}", f"95% interval {interval(score)}") if score else None
    )


def _zero_tile(facts: Facts) -> Html | None:
    score = _score(facts.zero, SAMPLED)
    return (
        tile(
            "R1-Zero",
            f"{score.accuracy:.1%}",
            f"95% interval {interval(score)}",
            class_="tile main",
        )
        if score
        else None
    )


def _rise_tile(facts: Facts) -> Html | None:
    before, after = _score(facts.base, SAMPLED), _score(facts.zero, SAMPLED)
    if before is None or after is None or facts.base is None:
        return None
    best = max(facts.base.modes[mode].overall.accuracy for mode in BASE_WAYS if mode in facts.base.modes)
    over_best = f"{(after.accuracy - best) * 100:+.1f} over base's best"
    return tile("rise, points", f"{(after.accuracy - before.accuracy) * 100:+.1f}", over_best)


def tile(label: str, value: str, small: str, *, class_: str = "tile") -> Html:
    """One number in large print."""
    return element(
        "div",
        element("div", label, class_="label"),
        element("div", value, class_="value"),
        element("div", small, class_="small"),
        class_=class_,
    )


def _gain_words(gain: Gain) -> Html:
    words = (
        f"The mean went from {gain.start:.1%} to {gain.end:.1%}, {gain.total * 100:+.1f} points: "
        f"{gain.format * 100:+.1f} from readable answers, {gain.thinking * 100:+.1f} from choosing to think, "
        f"{gain.ability * 100:+.1f} from new ability."
    )
    return element("p", words)


def _score(evaluation: Evaluation | None, mode: str) -> Score | None:
    return evaluation.score(mode) if evaluation else None


def _guess(facts: Facts) -> float | None:
    return facts.base.mean_guess if facts.base else None


def _pass_at_16(facts: Facts) -> float | None:
    return base_pass_at_16(facts.base) if facts.base else None


def _accuracy_cell(score: Score | None) -> object:
    if score is None:
        return "–"
    return join([f"{score.accuracy * 100:.1f}", element("span", interval(score), class_="small")])


def interval(score: Score) -> str:
    """The 95 % interval in words, in %."""
    return f"{score.low * 100:.1f} to {score.high * 100:.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.1f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def figure(svg: str | None, *, narrow: bool = False) -> Html | None:
    """A drawing in its place."""
    return element("figure", Html(svg), class_="narrow" if narrow else None) if svg else None
