"""The same network twice, ours and transformers', and the comparisons that every family has to pass.

In:  a ModelConfig that has a Hugging Face family.
Out: the pair with the same random weights; assertions on logits, on padding, on what an engine generates.
Not here: which networks (the test files), how weights are carried over (weights.py).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from weights import load, randomise

from tenth.engine.engine import Engine
from tenth.engine.request import SamplingParams
from tenth.model.config import ModelConfig
from tenth.model.hf_config import to_hf
from tenth.model.transformer import Transformer

# Two float32 passes over these widths each stand about 1e-5 off a float64 one. transformers keeps RMSNorm and
# softmax (and its router) in float32 even for float64 weights, which leaves 4e-6 there.
TOLERANCE = {torch.float32: 5e-5, torch.float64: 1e-5}
VOCABULARY = 64
TOKENS = 96  # three times the original contexts, so that stretched and plain angles differ widely
LENGTHS = (96, 57, 1, 40)  # of a padded batch


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One function, two implementations."""

    peer: Any
    network: Transformer


def build_peer(config: ModelConfig, *, seed: int = 0, **extra: Any) -> Any:
    """transformers' model of this shape with random weights; `extra` goes into its configuration."""
    import transformers

    theirs = transformers.AutoConfig.for_model(**{**to_hf(config, dtype="float32"), **extra})
    theirs._attn_implementation = "eager"
    theirs._experts_implementation = "eager"
    peer = transformers.AutoModelForCausalLM.from_config(theirs).eval()
    randomise(peer, seed=seed)
    return peer


def build_pair(
    config: ModelConfig, *, dtype: torch.dtype = torch.float32, is_interleaved: bool = True
) -> Pair:
    """Both, on the same weights."""
    extra = {} if is_interleaved else {"rope_interleave": False}
    peer = build_peer(config, **extra)
    network = Transformer(config)
    load(network, peer.state_dict(), is_interleaved=is_interleaved)
    return Pair(peer=peer.to(dtype), network=network.to(dtype))


def token_ids(*, seed: int = 1, batch: int = 2, tokens: int = TOKENS) -> Tensor:
    """(B, T)"""
    return torch.randint(VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def assert_logits_match(pair: Pair) -> None:
    """Of whole rows."""
    ids = token_ids()
    theirs, ours = pair.peer(ids).logits, pair.network.logits(pair.network(ids))
    assert theirs.abs().max() > 1  # else a tolerance in absolute terms would mean little
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE[ours.dtype], rtol=0)


@torch.no_grad()
def assert_padded_logits_match(pair: Pair, *, is_left: bool) -> None:
    """Of rows of different lengths, padded on one side, where there are tokens."""
    ids = token_ids(batch=len(LENGTHS))
    is_token = torch.arange(TOKENS) < torch.tensor(LENGTHS)[:, None]  # (B, T)
    is_token = is_token.flip(1) if is_left else is_token
    positions = (is_token.cumsum(1) - 1).clamp(min=0)
    theirs = pair.peer(ids, attention_mask=is_token.long(), position_ids=positions).logits
    ours = pair.network.logits(pair.network(ids, segment_ids=is_token.long()))
    torch.testing.assert_close(ours[is_token], theirs[is_token], atol=TOLERANCE[ours.dtype], rtol=0)


@torch.no_grad()
def assert_generation_matches(pair: Pair, *, new_tokens: int = 24) -> None:
    """Greedy answers of our engine are transformers' own, token for token, and the log-probabilities that
    its cached steps report are those of transformers' pass over the whole text."""
    prompts = [token_ids(seed=length, batch=1, tokens=length)[0].tolist() for length in (70, 5, 33)]
    params = SamplingParams(max_new_tokens=new_tokens, temperature=0.0)
    for prompt, (answer,) in zip(prompts, Engine(pair.network).generate(prompts, params), strict=True):
        theirs = pair.peer.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=new_tokens,
            eos_token_id=None,
            pad_token_id=0,
        )[0].tolist()
        assert list(answer.ids) == theirs[len(prompt) :]
        logits = pair.peer(torch.tensor([theirs[:-1]])).logits[0, len(prompt) - 1 :]
        wanted = logits.log_softmax(-1).gather(1, torch.tensor(answer.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(answer.logprobs), wanted, atol=1e-4, rtol=0)
