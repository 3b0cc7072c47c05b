"""The whole network: layouts that must not matter, decoding = whole pass, first weights, refusals."""

import dataclasses

import pytest
import torch
from small_models import CONFIGS, DEEPSEEK, QWEN, build, decode_all, random_ids
from twins import distance

from tenth.base.errors import ConfigError
from tenth.model.norm import RMSNorm
from tenth.model.router import Router
from tenth.model.transformer import Transformer, initialise, segment_starts

every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)], ids=["fp64", "fp32"]
)
LENGTHS = (7, 1, 33, 12)


def sequences():
    return [random_ids(length, seed=length) for length in LENGTHS]


def lay_out(side):
    """ids, segment ids and the place (row, start) of each sequence."""
    ids, segments = torch.zeros(4, 40, dtype=torch.int64), torch.zeros(4, 40, dtype=torch.int64)
    places = []
    for number, sequence in enumerate(sequences()):
        start = {"right": 0, "left": 40 - len(sequence), "middle": 3}[side]
        ids[number, start : start + len(sequence)] = sequence
        segments[number, start : start + len(sequence)] = 1
        places.append((number, start))
    return ids, segments, places


def packed():
    ids = torch.cat([*sequences(), torch.zeros(5, dtype=torch.int64)])[None]
    segments = torch.cat(
        [torch.full((length,), n + 1) for n, length in enumerate(LENGTHS)] + [torch.zeros(5)]
    )
    starts = [sum(LENGTHS[:n]) for n in range(4)]
    return ids, segments[None].long(), [(0, start) for start in starts]


LAYOUTS = {
    "padded right": lambda: lay_out("right"),
    "padded left": lambda: lay_out("left"),
    "padded on both sides": lambda: lay_out("middle"),
    "packed into one row": packed,
}


@PRECISIONS
@every_config
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_sequence_means_the_same_wherever_it_lies(config, layout, dtype, tolerance):
    network = build(config, dtype=dtype)
    ids, segments, places = layout()
    with torch.no_grad():
        together = network(ids, segment_ids=segments)
        for sequence, (row, start) in zip(sequences(), places, strict=True):
            alone = network(sequence[None])[0]
            assert distance(together[row, start : start + len(sequence)], alone) < tolerance


@pytest.mark.parametrize("config", [DEEPSEEK, QWEN], ids=["deepseek", "qwen"])
def test_right_padding_needs_no_segments(config):
    network = build(config)
    ids, segments, _ = lay_out("right")
    plain, masked = network(ids), network(ids, segment_ids=segments)
    is_real = segments.bool()
    torch.testing.assert_close(plain[is_real], masked[is_real], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("config", [DEEPSEEK, QWEN], ids=["deepseek", "qwen"])
def test_gradients_do_not_depend_on_the_layout(config):
    grads = []
    for layout in LAYOUTS.values():
        network = build(config)
        ids, segments, places = layout()
        hidden = network(ids, segment_ids=segments)
        total = sum(
            (hidden[row, start : start + n].sin().sum())
            for n, (row, start) in zip(LENGTHS, places, strict=True)
        )
        total.backward()
        grads.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    for other in grads[1:]:
        for name, gradient in grads[0].items():
            assert distance(other[name], gradient) < 1e-10, name


@PRECISIONS
@every_config
@pytest.mark.parametrize("prompt", [0, 20])
def test_decoding_equals_the_whole_pass(config, dtype, tolerance, prompt):
    network = build(config, dtype=dtype)
    ids = random_ids(2, 40)
    with torch.no_grad():
        assert distance(decode_all(network, ids, prompt=prompt), network(ids)) < tolerance


@pytest.mark.parametrize("config", [DEEPSEEK, QWEN], ids=["deepseek", "qwen"])
def test_nothing_looks_ahead(config):
    network = build(config)
    ids = random_ids(1, 20)
    other = ids.clone()
    other[0, 11] = (ids[0, 11] + 1) % 40
    moved = (network(ids) - network(other)).abs().amax(-1)[0] > 1e-9
    assert moved.tolist() == [t >= 11 for t in range(20)]


@every_config
def test_float32_gradients_equal_float64(config):
    grads = {}
    for dtype in (torch.float32, torch.float64):
        network = build(config, dtype=dtype)
        out = network.forward_training(random_ids(2, 34), depth=config.num_nextn_predict_layers)
        logp = [
            network.logits(hidden).log_softmax(-1)[..., 3].mean() for hidden in (out.hidden, *out.mtp_hidden)
        ]
        (sum(logp) + sum(balance.loss for balance in out.balances)).backward()
        grads[dtype] = {name: p.grad for name, p in network.named_parameters()}
    for name, wanted in grads[torch.float64].items():
        assert distance(grads[torch.float32][name], wanted) < 5e-5, name


def test_given_positions_replace_the_counted_ones():
    network = build(QWEN)
    ids = random_ids(1, 12)
    shifted = network(ids, positions=torch.arange(12)[None] + 30)
    assert distance(shifted, network(ids)) < 1e-6  # rotary angles are relative, the tables float32
    stretched = network(ids, positions=torch.arange(12)[None] * 3)
    assert distance(stretched, network(ids)) > 1e-3


def test_segment_starts_by_hand():
    segments = torch.tensor([[5, 5, 2, 2, 2, 5], [0, 0, 0, 0, 0, 0], [1, 2, 3, 3, 0, 0]])
    assert segment_starts(segments).tolist() == [[0, 0, 2, 2, 2, 5], [0] * 6, [0, 1, 2, 2, 4, 4]]


def test_matrices_start_normal_with_the_configured_width_norms_at_one_biases_at_zero():
    config = dataclasses.replace(DEEPSEEK, hidden_size=128, vocab_size=500, initializer_range=0.006)
    for name, parameter in initialise(
        Transformer(config), generator=torch.Generator().manual_seed(0)
    ).named_parameters():
        if parameter.dim() == 1:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
            continue
        # the standard error of a standard deviation over n draws is std / sqrt(2 n); five of them
        allowed = 5 / (2 * parameter.numel()) ** 0.5
        assert float(parameter.std()) == pytest.approx(0.006, rel=allowed), name
        assert abs(float(parameter.mean())) < 5 * 0.006 / parameter.numel() ** 0.5, name
    biased = initialise(Transformer(QWEN), generator=torch.Generator())
    assert torch.equal(biased.layers[0].attention.qkv.bias, torch.zeros(8 * 16))


def test_experts_start_different_from_each_other():
    network = initialise(Transformer(DEEPSEEK), generator=torch.Generator().manual_seed(0))
    assert not torch.equal(network.layers[1].ffn.gate_up[0], network.layers[1].ffn.gate_up[1])


def test_the_same_seed_gives_the_same_weights():
    one, two, other = (
        initialise(Transformer(DEEPSEEK), generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    for (name, a), b, c in zip(one.named_parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.dim() == 1 or not torch.equal(a, c), name


def test_leading_layers_are_dense_and_the_others_have_experts():
    network = Transformer(DEEPSEEK)
    kinds = [type(layer.ffn).__name__ for layer in network.layers]
    assert kinds == ["SwiGLU", "MoE", "MoE"]
    assert [type(module.block.ffn).__name__ for module in network.mtp] == ["MoE"]


def test_routers_come_in_the_order_of_the_balances():
    network = build(DEEPSEEK)
    for number, router in enumerate(network.routers()):  # send everything to experts number, number + 1, ...
        router.bias.fill_(-9.0)
        router.bias[2 * number : 2 * number + 2] = 9.0
    out = network.forward_training(random_ids(1, 10), depth=1)
    assert len(network.routers()) == len(out.balances) == 3
    for number, balance in enumerate(out.balances):
        assert set(balance.counts.topk(2).indices.tolist()) == {2 * number, 2 * number + 1}


def test_a_tied_head_is_the_embedding():
    network = build(QWEN)
    assert network.head is None
    hidden = network(random_ids(1, 5))
    torch.testing.assert_close(network.logits(hidden), hidden @ network.embed.weight.T)


def test_in_bfloat16_norms_and_routers_stay_float32():
    network = build(DEEPSEEK, dtype=torch.float32).to_compute_dtype(torch.bfloat16)
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            wide = isinstance(module, RMSNorm | Router)
            assert parameter.dtype == (torch.float32 if wide else torch.bfloat16), name
    assert all(router.bias.dtype == torch.float32 for router in network.routers())
    assert network.cos.dtype == torch.float32


@pytest.mark.parametrize("config", [dataclasses.replace(DEEPSEEK, moe=None), QWEN], ids=["mla", "qwen"])
def test_bfloat16_is_close_to_float32(config):
    # without experts: a router's near-tie may send a token elsewhere, which is no rounding error
    wide, narrow = build(config, dtype=torch.float32), build(config, dtype=torch.float32)
    narrow.to_compute_dtype(torch.bfloat16)
    ids = random_ids(2, 40)
    with torch.no_grad():
        assert distance(narrow(ids), wide(ids)) < 0.1
        assert distance(decode_all(narrow, ids, prompt=20), wide(ids)) < 0.1


def test_more_tokens_than_the_context_are_refused_with_a_sentence():
    network = build(QWEN, dtype=torch.float32)
    assert network(random_ids(1, 96)).shape == (1, 96, 32)
    with pytest.raises(ConfigError, match=r"97 tokens in a row.*max_position_embeddings = 96.*shorten"):
        network(random_ids(1, 97))


def test_the_rotary_tables_are_not_saved():
    assert not {"cos", "sin"} & set(Transformer(QWEN).state_dict())


def test_a_model_must_have_one_kind_of_attention():
    with pytest.raises(ConfigError, match="exactly one of mla and gqa"):
        dataclasses.replace(QWEN, gqa=None)
    with pytest.raises(ConfigError, match="exactly one of mla and gqa"):
        dataclasses.replace(QWEN, mla=DEEPSEEK.mla)
    with pytest.raises(ConfigError, match="multiple of num_key_value_heads"):
        dataclasses.replace(QWEN, num_attention_heads=3)
