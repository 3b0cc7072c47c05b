"""Multi-token prediction: what depth k may see, what it shares with the main model, where gradients go."""

import dataclasses

import pytest
import torch
from small_models import DEEPSEEK, build, random_ids
from twins import draw

from tenth.model.attention import Sequence
from tenth.model.mtp import MtpModule
from tenth.model.transformer import Transformer

DEEP = dataclasses.replace(DEEPSEEK, num_nextn_predict_layers=3)
TIME = 12


def test_hidden_states_of_every_depth_have_the_main_shape():
    network = build(DEEP)
    out = network.forward_training(random_ids(2, TIME + 3), depth=3)
    assert out.hidden.shape == (2, TIME, 32)
    assert [hidden.shape for hidden in out.mtp_hidden] == [(2, TIME, 32)] * 3
    assert len(out.balances) == 2 + 3  # two expert layers in the main model, one per module


@pytest.mark.parametrize("changed", range(TIME + 3))
def test_position_t_of_depth_k_sees_tokens_up_to_t_plus_k(changed):
    # so that what it is asked for, token t + k + 1, is the first one it has not seen
    network = build(DEEP)
    ids = random_ids(1, TIME + 3)
    other = ids.clone()
    other[0, changed] = (ids[0, changed] + 1) % 40
    with torch.no_grad():
        before, after = (network.forward_training(x, depth=3) for x in (ids, other))
    for k, (a, b) in enumerate(
        zip([before.hidden, *before.mtp_hidden], [after.hidden, *after.mtp_hidden], strict=True)
    ):
        has_moved = ((a - b).abs().amax(-1)[0] > 1e-9).tolist()
        assert has_moved == [t + k >= changed for t in range(TIME)]


def test_modules_have_no_embedding_and_no_head_of_their_own():
    network = build(DEEP)
    shared = {id(network.embed.weight), id(network.head.weight)}
    for module in network.mtp:
        assert not shared & {id(parameter) for parameter in module.parameters()}
        assert not any(40 in parameter.shape for parameter in module.parameters())  # 40: the vocabulary
    one = sum(p.numel() for p in network.mtp[0].parameters())
    with_one = sum(p.numel() for p in Transformer(DEEPSEEK).parameters())
    without = dataclasses.replace(DEEPSEEK, num_nextn_predict_layers=0)
    assert with_one - sum(p.numel() for p in Transformer(without).parameters()) == one


def test_the_loss_of_depth_k_teaches_the_shared_embedding_and_head():
    network = build(DEEP)
    out = network.forward_training(random_ids(1, TIME + 3), depth=3)
    network.logits(out.mtp_hidden[2]).log_softmax(-1)[..., 7].sum().backward()
    assert network.embed.weight.grad.abs().sum() > 0
    assert network.head.weight.grad.abs().sum() > 0
    # the chain: depth 3 rests on depths 1 and 2 and on the main model
    for part in (network.layers[0], network.mtp[0], network.mtp[1], network.mtp[2]):
        touched = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in part.parameters()]
        assert sum(touched) > 0.8 * len(touched)


def test_the_embedding_comes_before_the_hidden_state():
    # eh_proj = [identity, 0] keeps the normed embedding and drops the hidden state
    module = MtpModule(DEEPSEEK, 3).double()
    torch.nn.init.zeros_(module.block.attention.o.weight)  # the block becomes the identity
    torch.nn.init.zeros_(module.block.ffn.down)
    torch.nn.init.zeros_(module.block.ffn.shared.down.weight)
    for parameter in (module.block.attention.qkv_a.weight, module.block.attention.q_b.weight):
        torch.nn.init.zeros_(parameter)
    torch.nn.init.zeros_(module.block.attention.kv_b.weight)
    torch.nn.init.zeros_(module.block.ffn.router.weight)
    torch.nn.init.zeros_(module.block.ffn.gate_up)
    torch.nn.init.zeros_(module.block.ffn.shared.gate_up.weight)
    module.eh_proj.weight.data = torch.cat((torch.eye(32), torch.zeros(32, 32)), 1).double()
    embedded, hidden = draw(1, 5, 32).double(), draw(1, 5, 32, seed=1).double()
    angles = torch.zeros(1, 5, 8).double()
    out, _ = module(hidden, embedded, Sequence(cos=angles + 1, sin=angles, starts=None))
    rms = (embedded.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(out, embedded / rms)


def test_without_depth_the_pass_is_the_plain_one():
    network = build(DEEP)
    ids = random_ids(2, TIME)
    out = network.forward_training(ids)
    assert out.mtp_hidden == ()
    torch.testing.assert_close(out.hidden, network(ids), rtol=1e-12, atol=1e-12)


def test_the_extra_tokens_change_nothing_in_the_main_model():
    network = build(DEEP)
    ids = random_ids(2, TIME + 3)
    deep, plain = network.forward_training(ids, depth=3), network(ids[:, :TIME])
    torch.testing.assert_close(deep.hidden, plain, rtol=1e-12, atol=1e-12)
