"""What the sampler says it drew with is what the trainer computes, so that GRPO's ratio starts at 1."""

import pytest
import torch
from engine_models import CONFIGS, build, random_prompts

from tenth.engine.engine import Engine
from tenth.engine.request import SamplingParams
from tenth.engine.settings import EngineSettings
from tenth.training.batches import Layout, TrainedSequence, collate
from tenth.training.logprobs import answer_logprobs

PROMPTS = random_prompts(5, 1, 17, 9, 30)
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def sampled(network, params):
    """Pairs of (prompt, answer)."""
    groups = Engine(network, EngineSettings(max_sequences=7, max_batch_tokens=11)).generate(PROMPTS, params)
    return [(prompt, answer) for prompt, group in zip(PROMPTS, groups, strict=True) for answer in group]


def trained_logprobs(network, pairs, layout):
    sequences = [
        TrainedSequence(
            ids=(*prompt, *answer.ids), trained=(False,) * len(prompt) + (True,) * len(answer.ids)
        )
        for prompt, answer in pairs
    ]
    with torch.no_grad():
        return answer_logprobs(network, collate(sequences, layout=layout)).logp


@every_config
@pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.value)
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(max_new_tokens=24, n=3, stop_ids=(0,)),
        SamplingParams(max_new_tokens=24, n=3, stop_ids=(0,), temperature=0.6, top_p=0.95),
    ],
    ids=["training", "evaluation"],
)
def test_the_samplers_log_probabilities_are_the_trainers_in_float32(config, layout, params):
    network = build(config, dtype=torch.float32)
    pairs = sampled(network, params)
    reported = torch.tensor([logprob for _, answer in pairs for logprob in answer.logprobs])
    assert len(reported) > 100
    assert float((trained_logprobs(network, pairs, layout) - reported).abs().max()) < 1e-5


@every_config
def test_in_float64_they_agree_to_twelve_digits(config):
    network = build(config)
    pairs = sampled(network, SamplingParams(max_new_tokens=24, n=3, stop_ids=(0,)))
    reported = torch.tensor([x for _, answer in pairs for x in answer.logprobs], dtype=torch.float64)
    assert float((trained_logprobs(network, pairs, Layout.PACKED) - reported).abs().max()) < 1e-12


@every_config
def test_in_bfloat16_they_differ_by_rounding_only(config):
    network = build(config, dtype=torch.float32).to_compute_dtype(torch.bfloat16)
    pairs = sampled(network, SamplingParams(max_new_tokens=24, n=3, stop_ids=(0,)))
    reported = torch.tensor([logprob for _, answer in pairs for logprob in answer.logprobs])
    difference = (trained_logprobs(network, pairs, Layout.PAD_RIGHT).float() - reported).abs()
    assert (
        float(difference.median()) < 0.05
    )  # the median: where a router's tie falls the other way it is more
