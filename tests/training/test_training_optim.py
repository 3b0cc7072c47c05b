"""The updater: groups, masters, clipping against torch, and a state that restores bit for bit."""

import math

import pytest
import torch
from torch import nn

from tenth.base.errors import CheckpointError, ConfigError
from tenth.training.master import MasterWeights
from tenth.training.optim import OptimConfig, OptimKind, WeightUpdater, split_parameters


class Net(nn.Module):
    """One parameter of each kind, named as a language model names them."""

    def __init__(self, *, seed=0, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(7, 4)
        self.router = nn.Linear(4, 2, bias=False)
        self.gate_proj = nn.Linear(4, 6, bias=False)
        self.experts = nn.Parameter(torch.randn(2, 6, 4))
        self.norm = nn.Parameter(torch.ones(4))
        self.head = nn.Linear(4, 7, bias=False)
        self.unused = nn.Linear(4, 4, bias=False)
        self.to(dtype)
        self.norm.data = self.norm.data.float()

    def forward(self, ids):
        x = self.embed(ids)
        x = (x * self.norm).to(x.dtype)
        x = x + self.gate_proj(x) @ self.experts.mean(0) * self.router(x).mean()
        return self.head(x).float()


def train(net, updater, *, steps, first=0):
    norms = []
    for step in range(first, first + steps):
        ids = torch.randint(0, 7, (5, 3), generator=torch.Generator().manual_seed(step))
        nn.functional.cross_entropy(net(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        norms.append(updater.gather())
        updater.apply(lr_factor=1 - step / 20)
    return norms


def test_each_parameter_falls_into_one_group():
    groups = split_parameters(Net().named_parameters())
    assert set(groups.matrices) == {"gate_proj.weight", "experts", "unused.weight"}
    assert set(groups.tables) == {"embed.weight", "router.weight", "head.weight"}
    assert set(groups.vectors) == {"norm"}


def test_adamw_equals_torchs_own_with_clipping():
    ours, theirs = Net(), Net()
    updater = WeightUpdater(ours, OptimConfig(lr=1e-2, max_grad_norm=0.05))
    decayed = [param for param in theirs.parameters() if param.ndim > 1]
    reference = torch.optim.AdamW(
        [{"params": decayed}, {"params": [theirs.norm], "weight_decay": 0.0}],
        lr=1e-2,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        fused=False,
        foreach=False,
    )
    norms = train(ours, updater, steps=5)
    for step in range(5):
        ids = torch.randint(0, 7, (5, 3), generator=torch.Generator().manual_seed(step))
        nn.functional.cross_entropy(theirs(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
        assert norms[step] == pytest.approx(float(norm), rel=1e-5)
        for group in reference.param_groups:
            group["lr"] = 1e-2 * (1 - step / 20)
        reference.step()
        reference.zero_grad()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_norm_weights_are_not_decayed():
    net = Net()
    updater = WeightUpdater(net, OptimConfig(lr=0.1, weight_decay=0.5))
    for param in net.parameters():
        param.grad = torch.zeros_like(param)
    updater.gather()
    updater.apply()
    assert torch.equal(net.norm, torch.ones(4))
    assert not torch.equal(net.head.weight, Net().head.weight)


def test_with_muon_the_matrices_go_to_muon_and_the_rest_to_adamw():
    net = Net()
    updater = WeightUpdater(net, OptimConfig(kind=OptimKind.MUON))
    train(net, updater, steps=1)
    slots = {
        key.rsplit("/", 1)[0] + ":" + key.rsplit("/", 1)[1]
        for key in updater.state_dict()
        if "master" not in key
    }
    assert "muon/momentum_buffer:experts" in slots
    assert "muon/momentum_buffer:gate_proj.weight" in slots
    assert "adamw/exp_avg:router.weight" in slots
    assert "adamw/exp_avg:gate_proj.weight" not in slots


def test_discarding_a_step_leaves_every_weight_alone():
    net = Net()
    updater = WeightUpdater(net, OptimConfig())
    net(torch.tensor([[1, 2]])).sum().backward()
    updater.gather()
    updater.discard()
    assert all(param.grad is None for param in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), Net().parameters(), strict=True))


def test_applying_without_gradients_says_what_is_missing():
    with pytest.raises(ConfigError, match="backward"):
        WeightUpdater(Net(), OptimConfig()).gather()


def test_an_infinite_limit_turns_clipping_off():
    net = Net()
    updater = WeightUpdater(net, OptimConfig(max_grad_norm=math.inf))
    net(torch.tensor([[1, 2]])).sum().mul(1e3).backward()
    before = net.head.weight.grad.clone()
    updater.gather()
    assert torch.equal(net.head.weight.grad, before)


@pytest.mark.parametrize("kind", list(OptimKind))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_restored_run_ends_bit_for_bit_where_the_uninterrupted_one_ends(kind, dtype):
    config = OptimConfig(kind=kind, lr=1e-2)
    whole, cut, fresh = Net(dtype=dtype), Net(dtype=dtype), Net(seed=9, dtype=dtype)
    uninterrupted = WeightUpdater(whole, config)
    train(whole, uninterrupted, steps=6)

    before = WeightUpdater(cut, config)
    train(cut, before, steps=3)
    saved = {name: value.clone() for name, value in before.state_dict().items()}
    after = WeightUpdater(fresh, config)
    after.load_state_dict(saved)
    train(fresh, after, steps=3, first=3)

    expected, found = uninterrupted.state_dict(), after.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), fresh.parameters(), strict=True))


def test_a_state_of_another_optimizer_is_refused_with_the_remedy():
    net = Net()
    updater = WeightUpdater(net, OptimConfig(kind=OptimKind.MUON))
    train(net, updater, steps=1)
    with pytest.raises(CheckpointError, match="recipe that wrote"):
        WeightUpdater(Net(), OptimConfig()).load_state_dict(updater.state_dict())


def test_a_float32_model_is_its_own_master():
    net = Net()
    masters = MasterWeights(net)
    assert all(masters.named[name] is param for name, param in net.named_parameters())


def test_small_updates_survive_in_the_masters_of_a_bfloat16_model():
    # 1 + 2^-10 is not a bfloat16 number (8 bits), but eight such steps make 1 + 2^-7, which is one.
    net = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    net.weight.data.fill_(1.0)
    masters = MasterWeights(net)
    for _ in range(8):
        masters.named["weight"].data += 2**-10
        masters.publish()
    assert net.weight.item() == 1 + 2**-7
    assert net.weight.dtype is torch.bfloat16


def test_norms_kept_in_float32_inside_a_bfloat16_model_are_not_copied():
    net = Net(dtype=torch.bfloat16)
    masters = MasterWeights(net)
    assert masters.named["norm"] is net.norm
    assert masters.named["head.weight"].dtype is torch.float32


def test_gradients_of_micro_batches_are_summed_in_float32():
    # In bfloat16, 256 + 1 = 256: sixteen ones would vanish behind it.
    net = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    masters = MasterWeights(net)
    for value in [256.0] + [1.0] * 16:
        net.weight.grad = torch.full((1, 1), value, dtype=torch.bfloat16)
        masters.collect_grads()
    assert masters.named["weight"].grad.item() == 272.0
    masters.clear_grads()
    net.weight.grad = torch.full((1, 1), 3.0, dtype=torch.bfloat16)
    masters.collect_grads()
    assert masters.named["weight"].grad.item() == 3.0
