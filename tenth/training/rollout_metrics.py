"""One round's rollouts as numbers, by TRL's names.

Why: loss near 0 is normal in RL; reward, spread, length and silent groups are what to read.
In:  all rollouts of one round, whole groups. Out: a flat mapping for metrics.jsonl.
Not here: what the update did (grpo.py); words in the text (reports/). Torch-free.
"""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, pstdev
from typing import TypeVar

from tenth.base.records import Finish, Rollout
from tenth.training.advantages import SMALLEST_STD

K = TypeVar("K")


def rollout_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Rewards, groups and lengths. Answers whose verifier failed have no reward and are counted apart."""
    known = [rollout for rollout in rollouts if rollout.error is None]
    return {
        "verifier_error_ratio": 1 - len(known) / len(rollouts) if rollouts else 0.0,
        **_reward_metrics(known),
        **_length_metrics(rollouts),
    }


def _reward_metrics(known: Sequence[Rollout]) -> dict[str, float]:
    if not known:
        return {}
    groups = _grouped(known, key=lambda rollout: rollout.group_id)
    spreads = [pstdev(rollout.reward for rollout in group) for group in groups.values()]
    metrics = {
        "reward": fmean(rollout.reward for rollout in known),
        "reward_std": fmean(spreads),
        "frac_reward_zero_std": fmean(spread < SMALLEST_STD for spread in spreads),
    }
    for name in sorted({name for rollout in known for name in rollout.rewards}):
        values = [rollout.rewards[name] for rollout in known if name in rollout.rewards]
        metrics |= {f"rewards/{name}/mean": fmean(values), f"rewards/{name}/std": pstdev(values)}
    judged = [rollout for rollout in known if "accuracy" in rollout.rewards]
    for task, members in sorted(_grouped(judged, key=lambda rollout: rollout.task).items()):
        metrics[f"accuracy/{task}"] = fmean(rollout.rewards["accuracy"] for rollout in members)
    return metrics


def _length_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    if not rollouts:
        return {}
    lengths = [len(rollout.answer_ids) for rollout in rollouts]
    ended = [len(rollout.answer_ids) for rollout in rollouts if rollout.finish is Finish.STOP]
    return {
        "completions/mean_length": fmean(lengths),
        "completions/min_length": float(min(lengths)),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": 1 - len(ended) / len(rollouts),
        "completions/mean_terminated_length": fmean(ended) if ended else 0.0,
        "num_tokens": float(sum(lengths) + sum(len(rollout.prompt_ids) for rollout in rollouts)),
    }


def _grouped(rollouts: Iterable[Rollout], *, key: Callable[[Rollout], K]) -> dict[K, list[Rollout]]:
    groups: dict[K, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault(key(rollout), []).append(rollout)
    return groups
