"""Many sequences at once: read the prompts, then one token for everybody per step until all have ended.

Why: this is half of every RL step. The batch keeps its width while sequences end (a new width costs the
matrix library a new preparation) and shrinks in strides; prompts beyond `max_sequences` come in later waves.
In:  prompts as token ids, SamplingParams.  Out: `Generation`s, in order.
Not here: text, rewards, HTTP; paging and priorities, which belong to the next engine.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tenth.base.errors import ConfigError
from tenth.base.records import Finish
from tenth.base.seeds import stream_seed
from tenth.engine.kv_cache import SlotCache
from tenth.engine.request import Generation, SamplingParams
from tenth.engine.sampler import sample_ids
from tenth.model.transformer import Transformer

# Shapes: R rows decoding together, M sequences asked for in all


@dataclass(slots=True)
class _Sequence:
    """One sequence on its way."""

    prompt_id: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Finish | None = None


@dataclass(slots=True)
class _Rows:
    """The sequences of the current decode batch. All tensors (R,)."""

    members: list[int]  # index into the sequences asked for
    slots: Tensor
    positions: Tensor  # where the newest token will be written
    newest: Tensor  # id of the newest token

    def keep(self, rows: list[int]) -> "_Rows":
        index = torch.tensor(rows, dtype=torch.int64)
        return _Rows(
            [self.members[r] for r in rows], self.slots[index], self.positions[index], self.newest[index]
        )


class Engine:
    """Samples from one model in this process."""

    def __init__(self, model: Transformer, *, max_sequences: int = 512, stride: int = 32) -> None:
        self.model, self.max_sequences, self.stride = model, max_sequences, stride

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[list[Generation]]:
        """`params.n` samples for every prompt."""
        self._check(prompts, params)
        sequences = [_Sequence(prompt_id) for prompt_id in range(len(prompts)) for _ in range(params.n)]
        uniforms = _uniforms(prompts, params)  # (M, max_new_tokens)
        prompts_per_wave = max(1, self.max_sequences // params.n)
        for start in range(0, len(prompts), prompts_per_wave):
            wave = range(start, min(start + prompts_per_wave, len(prompts)))
            self._run_wave(prompts, wave, sequences, uniforms, params)
        done = [
            Generation(ids=tuple(s.ids), logprobs=tuple(s.logprobs), finish=s.finish or Finish.ABORTED)
            for s in sequences
        ]
        return [done[i * params.n : (i + 1) * params.n] for i in range(len(prompts))]

    def _check(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> None:
        limit = self.model.config.max_position_embeddings
        for number, prompt in enumerate(prompts):
            if not prompt:
                raise ConfigError(f"prompt {number} is empty; give at least one token.")
            if len(prompt) + params.max_new_tokens > limit:
                raise ConfigError(
                    f"prompt {number} has {len(prompt)} tokens and may grow by {params.max_new_tokens}, but "
                    f"the model's context is {limit}; shorten the prompt or lower max_new_tokens."
                )

    def _run_wave(
        self,
        prompts: Sequence[Sequence[int]],
        wave: range,
        sequences: list[_Sequence],
        uniforms: Tensor,
        params: SamplingParams,
    ) -> None:
        longest = max(len(prompts[i]) for i in wave)
        weight = self.model.head_weight
        cache = SlotCache(
            self.model.config,
            slots=len(wave) * params.n,
            positions=_round_up(longest + params.max_new_tokens, 32),
            dtype=weight.dtype,
            device=weight.device,
        )
        rows, logits = self._read_prompts(prompts, wave, cache, params)
        step = 0
        while True:
            index = torch.tensor(rows.members)
            rows.newest, logprobs = sample_ids(
                logits,
                uniforms[index, min(step, params.max_new_tokens - 1)],
                temperature=params.temperature,
                top_p=params.top_p,
            )
            self._record(rows, logprobs, sequences, params)
            alive = [r for r, member in enumerate(rows.members) if sequences[member].finish is None]
            if not alive:
                return
            rows = self._shrink(rows, alive)
            cache.step_at(rows.slots, rows.positions)
            logits = self.model.logits(self.model.decode(rows.newest, rows.positions, cache))
            # Rows that have ended stay for the sake of the batch's width; they must not leave the buffer.
            rows.positions = (rows.positions + 1).clamp(max=cache.buffer.shape[2] - 1)
            step += 1

    def _read_prompts(
        self, prompts: Sequence[Sequence[int]], wave: range, cache: SlotCache, params: SamplingParams
    ) -> tuple[_Rows, Tensor]:
        """Read every prompt of the wave once, then give each of its samples a copy."""
        lengths = torch.tensor([len(prompts[i]) for i in wave])  # (prompts,)
        # A few widths, so few shapes; but no position past the rotary tables.
        width = min(_round_up(int(lengths.max()), 8), self.model.config.max_position_embeddings)
        ids = torch.zeros(len(wave), width, dtype=torch.int64)
        for row, i in enumerate(wave):
            ids[row, : len(prompts[i])] = torch.tensor(prompts[i])
        first = torch.arange(len(wave)) * params.n  # slot of each prompt's first sample
        cache.read_prompts_into(first)
        hidden = self.model(ids, cache=cache)  # (prompts, T, D)
        last = hidden[torch.arange(len(wave)), lengths - 1]  # (prompts, D)
        slots = torch.arange(len(wave) * params.n)
        if params.n > 1:
            cache.copy(first.repeat_interleave(params.n), slots)
        rows = _Rows(
            members=list(range(wave.start * params.n, wave.stop * params.n)),
            slots=slots,
            positions=lengths.repeat_interleave(params.n),
            newest=torch.empty(0, dtype=torch.int64),
        )
        return rows, self.model.logits(last).repeat_interleave(params.n, 0)

    def _record(
        self, rows: _Rows, logprobs: Tensor, sequences: list[_Sequence], params: SamplingParams
    ) -> None:
        for member, token, logprob in zip(rows.members, rows.newest.tolist(), logprobs.tolist(), strict=True):
            sequence = sequences[member]
            if sequence.finish is not None:
                continue
            sequence.ids.append(token)
            sequence.logprobs.append(logprob)
            if token in params.stop_ids:
                sequence.finish = Finish.STOP
            elif len(sequence.ids) == params.max_new_tokens:
                sequence.finish = Finish.LENGTH

    def _shrink(self, rows: _Rows, alive: list[int]) -> _Rows:
        """Drop ended rows once a whole stride of them has gathered."""
        width = min(_round_up(len(alive), self.stride), len(rows.members))
        if width == len(rows.members):
            return rows
        living = set(alive)
        ended = [r for r in range(len(rows.members)) if r not in living]
        return rows.keep(alive + ended[: width - len(alive)])


def _uniforms(prompts: Sequence[Sequence[int]], params: SamplingParams) -> Tensor:
    """One stream of numbers per sequence. -> (M, max_new_tokens)

    Named by the prompt itself, so that a request's answer does not depend on its companions; a prompt that
    comes twice in one call is two requests.
    """
    uniforms = torch.empty(len(prompts) * params.n, params.max_new_tokens)
    times_seen: Counter[tuple[int, ...]] = Counter()
    for prompt_id, prompt in enumerate(prompts):
        key = tuple(prompt)
        for sample in range(params.n):
            seed = stream_seed(params.seed, "sample", *key, "time", times_seen[key], sample)
            torch.rand(
                params.max_new_tokens,
                generator=torch.Generator().manual_seed(seed),
                out=uniforms[prompt_id * params.n + sample],
            )
        times_seen[key] += 1
    return uniforms


def _round_up(value: int, multiple: int) -> int:
    return (value + multiple - 1) // multiple * multiple
