"""The model on which guessing ahead is timed: wider, and still the same function."""

import dataclasses

import torch

from benchmarks.draft_model import feed_forward_bytes, held_out, shared_experts_for, widened
from tenth.base.seeds import stream_random
from tenth.model.presets import preset
from tenth.model.transformer import Transformer, initialise
from tenth.pipeline.recipe import ZeroRecipe


def tiny():
    config = dataclasses.replace(preset("nano-zero"), vocab_size=16, initializer_range=0.3)
    return initialise(Transformer(config), generator=torch.Generator().manual_seed(3))


def test_a_widened_model_computes_the_same_and_guesses_the_same():
    model = tiny().double()
    wide = widened(model, num_shared_experts=5).double()
    rng = stream_random(0, "ids")
    ids = torch.tensor([[rng.randrange(16) for _ in range(12)]])
    ours, theirs = (each.forward_training(ids, depth=1) for each in (model, wide))
    torch.testing.assert_close(ours.hidden, theirs.hidden)
    torch.testing.assert_close(ours.mtp_hidden[0], theirs.mtp_hidden[0])


def test_a_widened_model_reads_at_least_the_bytes_asked_for():
    model = tiny()
    # Two layers of 3 matrices, 32 x 32 per shared expert, 2 bytes each: 12288 bytes, so 100000 ask for 9.
    num_shared_experts = shared_experts_for(model, step_bytes=100_000)
    assert num_shared_experts == 9
    assert feed_forward_bytes(widened(model, num_shared_experts=9)) == 9 * 12288


def test_the_first_held_out_problems_are_of_all_families():
    families = [{"name": name, "document_levels": (4, 5), "levels": (4, 5)} for name in ("sort", "swaps")]
    recipe = ZeroRecipe.model_validate(
        {"name": "two", "model": "nano-zero", "families": families, "eval": {"problems_per_family": 6}}
    )
    problems = held_out(recipe, per_family=3)
    assert [problem.task for problem in problems] == ["sort", "swaps"] * 3
