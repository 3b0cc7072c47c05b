"""Filters, penalties and biases are those of transformers' LogitsProcessors, given the same numbers."""

import pytest
import torch

from tenth.engine.penalties import adjust
from tenth.engine.request import SamplingParams
from tenth.engine.sampler import DrawSettings, kept_probabilities, sample

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

VOCABULARY, ROWS = 40, 4000
FILTERS = {
    "temperature": {"temperature": 0.6},
    "top_k": {"top_k": 7},
    "top_k of more than there are": {"top_k": 60},
    "top_p": {"top_p": 0.8},
    "small top_p": {"top_p": 0.05},
    "min_p": {"min_p": 0.1},
    "all at once": {"temperature": 1.4, "min_p": 0.02, "top_k": 12, "top_p": 0.9},
}


def scores_of(seed):
    return 2 * torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def theirs(scores, *, temperature=1.0, min_p=0.0, top_k=None, top_p=1.0):
    """Their processors, in our order."""
    chain = transformers.LogitsProcessorList([transformers.TemperatureLogitsWarper(temperature)])
    if min_p:
        chain.append(transformers.MinPLogitsWarper(min_p))
    if top_k:
        chain.append(transformers.TopKLogitsWarper(top_k))
    if top_p < 1:
        chain.append(transformers.TopPLogitsWarper(top_p))
    return chain(torch.zeros(1, 0, dtype=torch.int64), scores).softmax(-1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("how", FILTERS.values(), ids=FILTERS.keys())
def test_the_same_ids_are_kept_with_the_same_probabilities(how, seed):
    scores = scores_of(seed)
    rows = DrawSettings.of([SamplingParams(max_new_tokens=1, **how)])
    kept = kept_probabilities(scores, rows)
    # settings are held in float32: a temperature is off by 3e-8 of itself
    torch.testing.assert_close(kept / kept.sum(), theirs(scores, **how), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("how", FILTERS.values(), ids=FILTERS.keys())
def test_ids_are_drawn_as_often_as_their_probabilities_say(how):
    scores = scores_of(9)
    rows = DrawSettings.of([SamplingParams(max_new_tokens=1, **how)] * ROWS)
    uniforms = (torch.arange(ROWS) + 0.5) / ROWS
    ids = sample(scores.float().expand(ROWS, -1), uniforms, rows).ids
    found = torch.bincount(ids, minlength=VOCABULARY).double() / ROWS
    torch.testing.assert_close(found, theirs(scores, **how)[0], rtol=0, atol=1.1 / ROWS)


@pytest.mark.parametrize("penalty", [0.7, 1.3])
def test_the_repetition_penalty_is_theirs(penalty):
    prompt, generated, scores = [3, 3, 17], [5, 17, 21], scores_of(1)
    wanted = transformers.RepetitionPenaltyLogitsProcessor(penalty)(
        torch.tensor([prompt + generated]), scores.clone()
    )
    params = SamplingParams(max_new_tokens=8, repetition_penalty=penalty)
    torch.testing.assert_close(adjust(scores[0], generated, prompt, params), wanted[0])


def test_the_least_length_is_theirs():
    prompt, scores = [3, 17], scores_of(2)
    process = transformers.MinNewTokensLengthLogitsProcessor(len(prompt), 2, [0, 9], device="cpu")
    params = SamplingParams(max_new_tokens=8, min_new_tokens=2, stop_ids=(0, 9))
    for generated in ([], [4], [4, 4]):
        wanted = process(torch.tensor([prompt + generated]), scores.clone())
        assert torch.equal(adjust(scores[0], generated, prompt, params), wanted[0])


def test_biases_are_theirs():
    scores = scores_of(3)
    process = transformers.SequenceBiasLogitsProcessor([[[4], 1.5], [[11], -3.0]])
    wanted = process(torch.tensor([[1, 2]]), scores.float())
    params = SamplingParams(max_new_tokens=8, logit_bias={4: 1.5, 11: -3.0})
    torch.testing.assert_close(adjust(scores[0].float(), [2], [1], params), wanted[0])
