"""SFT and GRPO with an adapter: the adapter learns, the base does not move, and the base is the reference."""

import dataclasses
import math

import pytest
import torch
from test_training_grpo import some_rollouts
from test_training_real_model import SMALL

from tenth.model.lora import (
    LoraConfig,
    attach_lora,
    base_state_dict,
    lora_parameters,
    lora_places,
    merge_lora,
    routing_of,
)
from tenth.model.quantize import quantize_model
from tenth.model.transformer import Transformer, initialise
from tenth.training.batches import TrainedSequence
from tenth.training.grpo import grpo_gradients, grpo_update, weigh_rollouts
from tenth.training.grpo_loss import GrpoConfig
from tenth.training.optim import OptimConfig, OptimKind, WeightUpdater, split_parameters
from tenth.training.reference import ReferenceView
from tenth.training.sft import sft_gradients, sft_loss, sft_update

EXAMPLES = [
    TrainedSequence(ids=(1, 2, 3, 4, 5, 6), trained=(False, False, True, True, True, True)),
    TrainedSequence(ids=(7, 8, 9, 10), trained=(False, True, True, True)),
]
UNCLIPPED = OptimConfig(max_grad_norm=math.inf)


def build(*, dtype=torch.float64, rank=2, randomly=False) -> Transformer:
    """A small network with an adapter on every target; `randomly`: as if trained before."""
    model = initialise(Transformer(SMALL), generator=torch.Generator().manual_seed(0))
    model = model.double() if dtype == torch.float64 else model.to_compute_dtype(dtype)
    targets = tuple(dict.fromkeys(place.target for place in lora_places(SMALL)))
    generator = torch.Generator().manual_seed(1)
    attach_lora(model, LoraConfig(rank=rank, alpha=4.0, targets=targets), generator=generator)
    if randomly:
        for parameter in lora_parameters(model).values():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return model


def frozen_copy(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in base_state_dict(model).items()}


def assert_base_is(model: Transformer, expected) -> None:
    found = base_state_dict(model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def adapter_of(model: Transformer):
    return {name: parameter.detach().clone() for name, parameter in lora_parameters(model).items()}


@pytest.mark.parametrize("kind", list(OptimKind))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_fine_tuning_moves_the_adapter_and_no_bit_of_the_base(dtype, kind):
    model = build(dtype=dtype)
    base, start = frozen_copy(model), adapter_of(model)
    updater = WeightUpdater(model, OptimConfig(lr=0.02, kind=kind))
    before = sft_loss(model, EXAMPLES, micro_batch_tokens=100)
    for _ in range(15):
        sft_update(model, updater, EXAMPLES, micro_batch_tokens=100)
    assert sft_loss(model, EXAMPLES, micro_batch_tokens=100) < before / 2
    assert_base_is(model, base)
    assert all(not torch.equal(parameter, start[name]) for name, parameter in adapter_of(model).items())


def test_a_quantised_base_is_fine_tuned_through_its_adapter():
    model = initialise(Transformer(SMALL), generator=torch.Generator().manual_seed(0))
    attach_lora(quantize_model(model, 8), LoraConfig(rank=2, alpha=4.0, targets=("o_proj", "down_proj")))
    base = frozen_copy(model)
    updater = WeightUpdater(model, OptimConfig(lr=0.02))
    before = sft_loss(model, EXAMPLES, micro_batch_tokens=100)
    for _ in range(15):
        sft_update(model, updater, EXAMPLES, micro_batch_tokens=100)
    assert sft_loss(model, EXAMPLES, micro_batch_tokens=100) < 0.8 * before
    assert_base_is(model, base)


def test_the_gradient_is_the_slope_of_the_loss():
    model = build(randomly=True)
    sft_gradients(model, WeightUpdater(model, UNCLIPPED), EXAMPLES, micro_batch_tokens=5)
    generator, small = torch.Generator().manual_seed(2), 1e-6
    for parameter in lora_parameters(model).values():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        losses = []
        for sign in (1, -1):
            parameter.data += sign * small * direction
            losses.append(sft_loss(model, EXAMPLES, micro_batch_tokens=100))
            parameter.data -= sign * small * direction
        slope = (losses[0] - losses[1]) / (2 * small)
        assert slope == pytest.approx(float((parameter.grad * direction).sum()), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_experts_pass_on_the_gradient_that_learning_ones_do(dtype):
    # widths that the native products take: 32 and multiples
    moe = dataclasses.replace(SMALL.moe, moe_intermediate_size=32)
    gradients = []
    for learns in (False, True):
        config = dataclasses.replace(SMALL, moe=moe)
        model = initialise(Transformer(config), generator=torch.Generator().manual_seed(0))
        model.to_compute_dtype(dtype)
        shape = LoraConfig(rank=2, alpha=4.0, targets=("o_proj",))
        attach_lora(model, shape, generator=torch.Generator().manual_seed(1))
        experts = [model.layers[1].ffn.gate_up, model.layers[1].ffn.down]
        for parameter in experts:
            parameter.requires_grad_(learns)
        model(torch.arange(12).view(2, 6)).square().sum().backward()
        assert {parameter.grad is not None for parameter in experts} == {learns}
        gradients.append([parameter.grad for parameter in lora_parameters(model).values()])
    for frozen, learning in zip(*gradients, strict=True):
        assert torch.equal(frozen, learning)


def test_the_factors_of_an_adapter_are_adamws_in_any_case():
    model = build()
    assert not split_parameters(lora_parameters(model).items()).matrices
    updater = WeightUpdater(model, OptimConfig(kind=OptimKind.MUON))
    sft_update(model, updater, EXAMPLES, micro_batch_tokens=100)
    names = {name for name in updater.state_dict() if not name.startswith("master/")}
    assert {name.partition("/")[0] for name in names} == {"adamw"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_restored_run_ends_bit_for_bit_where_the_uninterrupted_one_ends(dtype):
    whole, config = build(dtype=dtype), OptimConfig(lr=0.01)
    updater = WeightUpdater(whole, config)
    for step in range(4):
        if step == 2:
            state = {name: tensor.clone() for name, tensor in updater.state_dict().items()}
        sft_update(whole, updater, EXAMPLES, micro_batch_tokens=100)
    assert {name.split("/")[-1] for name in state} == lora_parameters(whole).keys()  # none of the base's
    resumed = build(dtype=dtype, randomly=True)
    updater = WeightUpdater(resumed, config)
    updater.load_state_dict(state)
    for _ in range(2):
        sft_update(resumed, updater, EXAMPLES, micro_batch_tokens=100)
    expected = adapter_of(whole)
    assert all(torch.equal(found, expected[name]) for name, found in adapter_of(resumed).items())


# the reference


def grpo(policy, reference):
    config = GrpoConfig(beta=0.1)
    items = weigh_rollouts(some_rollouts(11), config)
    updater = WeightUpdater(policy, UNCLIPPED)
    stats = grpo_gradients(policy, reference, updater, items, config, micro_batch_tokens=40)
    return stats, [parameter.grad for parameter in lora_parameters(policy).values()]


def test_the_base_behind_the_policy_is_as_good_a_reference_as_a_copy_of_it():
    policy = build(randomly=True)
    copy = initialise(Transformer(SMALL), generator=torch.Generator().manual_seed(0)).double()
    stats, gradients = grpo(policy, ReferenceView(policy))
    assert stats.metrics()["kl"] > 1e-3
    other = build(randomly=True)
    expected_stats, expected = grpo(other, copy)
    assert stats == expected_stats
    assert all(torch.equal(one, two) for one, two in zip(gradients, expected, strict=True))


def test_another_adapter_can_be_the_reference():
    policy = build(randomly=True)
    merged = merge_lora(build(randomly=True))
    attach_lora(policy, LoraConfig(rank=2, alpha=4.0, targets=("o_proj",)), name="policy")
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(ReferenceView(policy, "default")(ids), merged(ids), rtol=0, atol=1e-12)
    assert routing_of(policy).active == "policy"


def test_a_step_of_grpo_moves_the_adapter_and_no_bit_of_the_base():
    policy = build()
    base, start = frozen_copy(policy), adapter_of(policy)
    config = GrpoConfig(beta=0.1)
    stats = grpo_update(
        policy,
        ReferenceView(policy),
        WeightUpdater(policy, OptimConfig(lr=0.01)),
        weigh_rollouts(some_rollouts(11), config),
        config,
        micro_batch_tokens=40,
    )
    assert stats.metrics()["kl"] == 0  # B is zero: the policy is its reference, exactly
    assert_base_is(policy, base)
    moved = [not torch.equal(parameter, start[name]) for name, parameter in adapter_of(policy).items()]
    assert sum(moved) >= len(moved) / 2  # every B; A waits until its B is not zero
