"""The benchmark's way from our weights to transformers' is the inverse of the way that parity tests go."""

import dataclasses

import pytest
import torch
from weights import translate

from benchmarks.engine_weights import random_model, transformers_state
from tenth.model.presets import preset

TIED = dataclasses.replace(preset("dense-5m"), num_hidden_layers=2)
EXPERTS = dataclasses.replace(preset("dsv3-mini"), num_hidden_layers=3)
SHAPES = {
    "grouped-query": TIED,
    "untied": dataclasses.replace(TIED, tie_word_embeddings=False),
    "latent, experts": EXPERTS,
    "no query latent": dataclasses.replace(EXPERTS, mla=dataclasses.replace(EXPERTS.mla, q_lora_rank=None)),
}


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
def test_there_and_back_is_the_same_weights(config):
    model = random_model(config)
    back = translate(transformers_state(model), config)
    ours = model.state_dict()
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)
