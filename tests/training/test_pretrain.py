"""A pre-training step: its loss and gradient by hand, the router's bias, the guard, and that it learns."""

import copy
import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from tenth.model.presets import preset
from tenth.model.transformer import Transformer, initialise
from tenth.training.guard import Action, GuardMemory
from tenth.training.optim import OptimConfig, WeightUpdater
from tenth.training.pretrain import Pretrainer, PretrainPlan, held_out_bits_per_byte
from tenth.training.schedules import LrSchedule

CONFIG = preset("nano-zero")  # experts, latent attention, one MTP module
TIME, DEPTH = 12, 1
PLAN = PretrainPlan(
    total_tokens=1000,
    schedule=LrSchedule(warmup_steps=2, constant_until=1.0),
    mtp_weights=(0.3, 0.1),
    matmul_peak=1e9,
)
METRICS = {
    "loss",
    "mtp_loss",
    "balance_loss",
    "max_vio",
    "grad_norm",
    "learning_rate",
    "num_tokens",
    "batch_tokens",
    "tokens_per_second",
    "flops_per_second",
    "peak_share",
    "step_time",
}


def build(*, dtype=torch.float32):
    model = initialise(Transformer(CONFIG), generator=torch.Generator().manual_seed(0))
    return model.to_compute_dtype(dtype)


def make_trainer(model=None, *, lr=1e-3, plan=PLAN):
    model = model or build()
    return Pretrainer(model, WeightUpdater(model, OptimConfig(lr=lr, max_grad_norm=math.inf)), plan)


def make_windows(rows=4, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, CONFIG.vocab_size, (rows, TIME + 1 + DEPTH), generator=generator)


def losses_by_hand(model, windows):
    """Next token, next but one, and the balance term, from the definitions."""
    output = model.forward_training(windows[:, : TIME + DEPTH], depth=DEPTH)
    hiddens = (output.hidden, *output.mtp_hidden)
    ahead = [
        F.cross_entropy(model.logits(hidden).flatten(0, 1).float(), windows[:, k : k + TIME].flatten())
        for k, hidden in enumerate(hiddens, start=1)
    ]
    return ahead[0], ahead[1], sum(each.loss for each in output.balances)


def weights_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_losses_are_those_of_the_next_token_and_of_the_one_behind_it():
    model, windows = build(), make_windows()
    following, behind, balance = losses_by_hand(copy.deepcopy(model), windows)
    metrics, _ = make_trainer(model).step(0, windows)
    assert metrics["loss"] == pytest.approx(following.item(), rel=1e-5)
    assert metrics["mtp_loss"] == pytest.approx(behind.item(), rel=1e-5)
    assert metrics["balance_loss"] == pytest.approx(balance.item(), rel=1e-5)


@pytest.mark.parametrize(("tokens_before", "weight"), [(0, 0.3), (600, 0.3), (700, 0.1)])
def test_the_gradient_is_of_the_weighted_sum_and_the_mtp_weight_falls_after_two_thirds(tokens_before, weight):
    model, windows = build(), make_windows()
    twin = copy.deepcopy(model)
    following, behind, balance = losses_by_hand(twin, windows)
    total = following + weight * behind + CONFIG.moe.sequence_balance_weight * balance
    total.backward()
    norms = [param.grad.norm() for param in twin.parameters() if param.grad is not None]
    trainer = make_trainer(model)
    trainer.num_tokens = tokens_before
    metrics, _ = trainer.step(0, windows)
    assert metrics["grad_norm"] == pytest.approx(torch.stack(norms).norm().item(), rel=1e-4)


def test_every_documented_metric_is_there_and_counts_what_it_says():
    trainer = make_trainer()
    trainer.step(0, make_windows(rows=4))
    metrics, judgement = trainer.step(1, make_windows(rows=2))
    assert metrics.keys() == METRICS
    assert (metrics["batch_tokens"], metrics["num_tokens"]) == (2 * TIME, 6 * TIME)
    assert metrics["peak_share"] == pytest.approx(metrics["flops_per_second"] / 1e9)
    assert metrics["tokens_per_second"] == pytest.approx(2 * TIME / metrics["step_time"])
    assert judgement.action is Action.CONTINUE


def test_the_learning_rate_follows_the_schedule():
    trainer = make_trainer(lr=1e-3)
    rates = [trainer.step(step, make_windows())[0]["learning_rate"] for step in range(3)]
    assert rates == pytest.approx([0.5e-3, 1e-3, 1e-3])


def test_an_overloaded_expert_becomes_less_attractive_and_an_idle_one_more():
    model, windows = build(), make_windows(rows=8)
    counts = [
        each.counts for each in model.forward_training(windows[:, : TIME + DEPTH], depth=DEPTH).balances
    ]
    make_trainer(model).step(0, windows)
    for router, load in zip(model.routers(), counts, strict=True):
        mean = 8 * TIME * CONFIG.moe.num_experts_per_tok / CONFIG.moe.n_routed_experts
        expected = [0.001 * ((mean > each) - (mean < each)) for each in load.tolist()]
        assert router.bias.tolist() == pytest.approx(expected)


def test_the_bias_rests_at_the_end():
    trainer = make_trainer()
    trainer.num_tokens = 990  # of 1000; the last 3.4 % are frozen
    trainer.step(0, make_windows())
    assert all(not router.bias.any() for router in trainer.model.routers())


def test_a_skipped_step_moves_nothing_but_the_place_in_the_data():
    trainer = make_trainer()
    trainer.step(0, make_windows())
    trainer.guard_memory = GuardMemory(losses=(0.5,) * 16)  # so that a loss of about 6 is a spike
    before, state = weights_of(trainer.model), {k: v.clone() for k, v in trainer.updater.state_dict().items()}
    metrics, judgement = trainer.step(1, make_windows())
    assert judgement.action is Action.SKIP
    assert "standard deviations above its median" in judgement.reason
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.model.state_dict().items())
    assert all(torch.equal(state[name], tensor) for name, tensor in trainer.updater.state_dict().items())
    assert all(param.grad is None for param in trainer.model.parameters())
    assert metrics["num_tokens"] == 2 * 4 * TIME


def test_after_three_skipped_steps_the_guard_asks_to_go_back():
    trainer = make_trainer()
    trainer.guard_memory = GuardMemory(losses=(0.5,) * 16)
    actions = [trainer.step(step, make_windows())[1].action for step in range(4)]
    assert actions == [Action.SKIP] * 3 + [Action.ROLLBACK]


def test_a_gradient_that_is_no_number_is_never_applied():
    trainer = make_trainer()
    before = weights_of(trainer.model)
    trainer.model.head.weight.register_hook(lambda grad: grad * math.nan)
    _, judgement = trainer.step(0, make_windows())
    assert judgement.action is Action.SKIP
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_learns_a_corpus_that_counts(dtype):
    starts = torch.arange(16)[:, None]
    windows = (starts + torch.arange(TIME + 1 + DEPTH)) % 16 + 20  # every token is followed by its successor
    plan = dataclasses.replace(PLAN, total_tokens=60 * windows.shape[0] * TIME)
    trainer = make_trainer(build(dtype=dtype), lr=1e-2, plan=plan)
    losses = [trainer.step(step, windows)[0] for step in range(60)]
    assert losses[0]["loss"] == pytest.approx(math.log(CONFIG.vocab_size), rel=0.05)
    assert losses[-1]["loss"] < 0.2
    assert losses[-1]["mtp_loss"] < 0.5


def test_bfloat16_and_float32_say_about_the_same():
    wide, _ = make_trainer(build()).step(0, make_windows())
    narrow, _ = make_trainer(build(dtype=torch.bfloat16)).step(0, make_windows())
    for name in ("loss", "mtp_loss", "balance_loss", "grad_norm"):
        assert narrow[name] == pytest.approx(wide[name], rel=0.03)


def test_a_model_that_knows_nothing_needs_the_entropy_of_its_vocabulary():
    model = build()
    torch.nn.init.zeros_(model.head.weight)
    windows = make_windows(rows=3)[:, : TIME + 1]
    # 320 equally likely tokens are log2(320) = 8.32 bits each; 0.4 tokens per byte.
    found = held_out_bits_per_byte(model, [windows[:2], windows[2:]], tokens_per_byte=0.4)
    assert found == pytest.approx(math.log2(320) * 0.4, rel=0.05)  # 36 tokens are 90 bytes


def test_bits_per_byte_weigh_every_token_the_same_however_they_are_batched():
    model, windows = build(), make_windows(rows=5)[:, : TIME + 1]
    one = held_out_bits_per_byte(model, [windows], tokens_per_byte=0.5)
    many = held_out_bits_per_byte(model, windows.split(2), tokens_per_byte=0.5)
    assert many == pytest.approx(one, rel=1e-5)
