"""Adapters over fused matrices: the base until trained, the merged weights after, one per row when served."""

import dataclasses

import pytest
import torch
from small_models import CONFIGS, DEEPSEEK, MOE, QWEN, build, decode_all, random_ids
from torch import Tensor

from tenth.base.errors import ConfigError
from tenth.model.config import ModelConfig
from tenth.model.lora import (
    LoraConfig,
    LoraLinear,
    adapter_names,
    attach_lora,
    base_state_dict,
    default_targets,
    detach_lora,
    lora_pairs,
    lora_parameters,
    lora_parts,
    lora_places,
    merge_lora,
    require_servable,
    routing_of,
)
from tenth.model.quantize import quantize_model
from tenth.model.transformer import Transformer

IDS = random_ids(4, 10)


def every_target(config: ModelConfig) -> tuple[str, ...]:
    return tuple(dict.fromkeys(place.target for place in lora_places(config)))


def attach(model: Transformer, *, name: str = "default", targets=None, rank: int = 2, seed: int = 0) -> None:
    """An adapter whose factors are both random, as if it had been trained."""
    targets = targets or every_target(model.config)
    generator = torch.Generator().manual_seed(seed)
    attach_lora(model, LoraConfig(rank=rank, alpha=3.0, targets=targets), name=name, generator=generator)
    for parameter in lora_parameters(model, name).values():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


# the table of targets


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_places_of_a_matrix_tile_its_rows(config):
    model = build(config)
    by_path: dict[str, list] = {}
    for place in lora_places(config):
        by_path.setdefault(place.path, []).append(place)
    for path, places in by_path.items():
        rows, columns = model.get_submodule(path).weight.shape
        assert [place.start for place in places] == [
            sum(place.rows for place in places[:index]) for index in range(len(places))
        ]
        assert sum(place.rows for place in places) == rows
        assert {place.columns for place in places} == {columns}
    linear = {path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert set(by_path) == {path for path in linear if not path.startswith(("head", "mtp"))}


def test_a_target_that_the_network_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(ConfigError, match=r"no q_a_proj .* only q_proj, k_proj, v_proj, o_proj, gate_proj"):
        attach_lora(build(QWEN), LoraConfig(rank=2, alpha=2.0, targets=("q_proj", "q_a_proj")))


def test_experts_without_shared_ones_have_no_feed_forward_to_adapt():
    moe = dataclasses.replace(MOE, n_shared_experts=0, first_k_dense_replace=0)
    config = dataclasses.replace(DEEPSEEK, moe=moe)
    with pytest.raises(ConfigError, match="routed experts are not adapted"):
        lora_places(config, ("gate_proj",))


@pytest.mark.parametrize("values", [{"rank": 0}, {"alpha": 0.0}, {"targets": ()}, {"targets": ("lm_head",)}])
def test_a_shape_that_makes_no_adapter_is_refused(values):
    with pytest.raises(ConfigError, match="lora "):
        LoraConfig(**{"rank": 2, "alpha": 2.0, "targets": ("q_proj",)} | values)


def test_the_scale_is_alpha_over_rank_or_over_its_root():
    config = LoraConfig(rank=16, alpha=8.0, targets=("q_proj",))
    assert config.scale == 0.5
    assert dataclasses.replace(config, use_rslora=True).scale == 2.0


# what an adapted network computes


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_new_adapter_changes_no_bit(config):
    model = build(config)
    before = model(IDS)
    attach_lora(model, LoraConfig(rank=2, alpha=3.0, targets=every_target(config)))
    assert torch.equal(model(IDS), before)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_adapted_network_is_the_network_with_the_products_added_to_its_weights(config):
    model, expected = build(config), build(config)
    attach(model)
    for place, part in lora_parts(model):  # by hand: rows of the fused matrix, scale alpha / rank
        weight = expected.get_submodule(place.path).weight.data
        weight[place.start : place.start + place.rows] += 3.0 / 2 * part.lora_B.data @ part.lora_A.data
    assert (build(config)(IDS) - expected(IDS)).abs().max() > 0.1
    assert_close(model(IDS), expected(IDS))
    merge_lora(model)
    assert_close(model(IDS), expected(IDS))
    assert model.state_dict().keys() == expected.state_dict().keys()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_decoding_computes_what_the_whole_sequence_does_kv_b_included(config):
    model = build(config)
    attach(model)
    assert_close(decode_all(model, IDS, prompt=4), model(IDS))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_rows_with_adapters_of_their_own_compute_what_each_computes_alone(config):
    model = build(config)
    targets = tuple(target for target in every_target(config) if target != "kv_b_proj")
    attach(model, name="a", targets=targets, seed=1)
    attach(model, name="b", targets=("o_proj", "down_proj"), rank=3, seed=2)
    routing = routing_of(model)
    alone = {}
    for name in ("a", "b", None):
        with routing.using(name):
            alone[name] = model(IDS)
    expected = torch.stack([alone[name][row] for row, name in enumerate(("b", None, "a", "b"))])
    rows = torch.tensor([1, -1, 0, 1])  # numbers in routing.names
    with routing.using_rows(rows):
        assert_close(model(IDS), expected)
        assert_close(decode_all(model, IDS, prompt=0), expected)
    with routing.using_rows(rows.repeat_interleave(4)):  # one number per token: four tokens read at once
        assert_close(decode_all(model, IDS[:, :4], prompt=4), expected[:, :4])


def test_gradients_are_those_of_the_merged_weights():
    model, merged = build(DEEPSEEK), build(DEEPSEEK)
    attach(model)
    factors = {}
    for place, part in lora_parts(model):
        pair = (part.lora_A.detach().clone(), part.lora_B.detach().clone())
        factors[place] = tuple(factor.requires_grad_() for factor in pair)
    weights = {name: parameter.detach() for name, parameter in merged.named_parameters()}
    for place, (down, up) in factors.items():
        name = f"{place.path}.weight"
        weight = weights[name]
        pieces = weight.split([place.start, place.rows, len(weight) - place.start - place.rows])
        weights[name] = torch.cat((pieces[0], pieces[1] + 1.5 * up @ down, pieces[2]))
    mask = torch.randn(4, 10, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    (torch.func.functional_call(merged, weights, (IDS,)) * mask).sum().backward()
    (model(IDS) * mask).sum().backward()
    for place, part in lora_parts(model):
        down, up = factors[place]
        torch.testing.assert_close(part.lora_A.grad, down.grad, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(part.lora_B.grad, up.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_base_carries_adapters_and_keeps_its_numbers(bits):
    model = quantize_model(build(QWEN, dtype=torch.float32), bits)
    plain = model(IDS)
    attach(model)
    with routing_of(model).using(None):
        assert torch.equal(model(IDS), plain)
    assert (model(IDS) - plain).abs().max() > 0.1
    model(IDS).sum().backward()
    assert all(parameter.grad is not None for parameter in lora_parameters(model).values())
    with pytest.raises(ConfigError, match="is quantised"):
        merge_lora(model)
    detach_lora(model)
    assert torch.equal(model(IDS), plain)


def test_adapters_stay_in_float32_beside_a_bfloat16_base():
    model = build(QWEN, dtype=torch.float32)
    attach(model, name="before")
    model.to_compute_dtype(torch.bfloat16)
    attach(model, name="after")
    assert model.embed.weight.dtype == torch.bfloat16
    for name in ("before", "after"):
        assert {p.dtype for p in lora_parameters(model, name).values()} == {torch.float32}
    assert model(IDS).dtype == torch.bfloat16


# attaching and detaching


def test_attaching_freezes_everything_else_and_the_first_factor_has_pefts_bound():
    model = build(DEEPSEEK, dtype=torch.float32)
    attach_lora(model, LoraConfig(rank=4, alpha=8.0, targets=("q_b_proj",)))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == lora_parameters(model).keys()
    for name, parameter in lora_parameters(model).items():
        largest = parameter.abs().max()
        assert largest == 0 if "lora_B" in name else 0.8 * 24**-0.5 < largest <= 24**-0.5


def test_the_same_generator_gives_the_same_adapter():
    one, other = build(QWEN), build(QWEN)
    for model in (one, other):
        config = LoraConfig(rank=2, alpha=2.0, targets=("v_proj",))
        attach_lora(model, config, generator=torch.Generator().manual_seed(4))
    for first, second in zip(lora_parameters(one).values(), lora_parameters(other).values(), strict=True):
        assert torch.equal(first, second)


def test_detaching_gives_the_network_back():
    model = build(DEEPSEEK)
    before = model(IDS)
    attach(model, name="a", targets=("q_b_proj",))
    attach(model, name="b", targets=("o_proj",))
    detach_lora(model, "a")
    assert adapter_names(model) == ("b",)
    detach_lora(model, "b")
    assert adapter_names(model) == ()
    assert torch.equal(model(IDS), before)
    assert not [module for module in model.modules() if isinstance(module, LoraLinear)]


def test_the_base_has_its_own_names_with_and_without_adapters():
    model = build(DEEPSEEK)
    expected = build(DEEPSEEK).state_dict()
    for adapter in ("a", "b"):
        found = base_state_dict(model)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
        attach(model, name=adapter)


@pytest.mark.parametrize("name", ["", "a.b", "taken", "items"])
def test_a_name_that_is_taken_or_cannot_be_one_is_refused(name):
    model = build(QWEN)
    attach(model, name="taken")
    with pytest.raises(ConfigError, match=f"adapter name '{name}' is"):
        attach(model, name=name)
    assert adapter_names(model) == ("taken",)


def test_an_unknown_adapter_is_refused_with_the_known_ones():
    model = build(QWEN)
    with pytest.raises(ConfigError, match="has no adapter"):
        routing_of(model)
    attach(model, name="known")
    for act in (detach_lora, merge_lora, lora_pairs, lora_parameters):
        with pytest.raises(ConfigError, match="no adapter 'other' is attached, only known"):
            act(model, "other")


def test_what_a_pass_used_is_put_back_when_it_fails():
    model = build(QWEN)
    attach(model)
    routing = routing_of(model)
    with pytest.raises(ZeroDivisionError), routing.using(None):
        raise ZeroDivisionError
    assert (routing.active, routing.rows) == ("default", None)


def test_rows_that_do_not_divide_the_input_are_refused():
    model = build(QWEN)
    attach(model)
    with (
        routing_of(model).using_rows(torch.zeros(3)),
        pytest.raises(ConfigError, match=r"3 rows .* 40 tokens"),
    ):
        model(IDS)


# for whoever serves


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_one_pair_per_matrix_does_what_its_parts_do(config):
    model = build(config)
    attach(model)
    for path, pair in lora_pairs(model).items():
        linear = model.get_submodule(path)
        assert pair.down.dtype == pair.up.dtype == torch.float32
        delta = linear.weight - linear.base.weight  # what is active against what is not
        torch.testing.assert_close(pair.up @ pair.down, delta.float(), rtol=1e-5, atol=1e-6)
    assert lora_pairs(model).keys() == {place.path for place in lora_places(config)}


def test_an_adapter_of_kv_b_cannot_be_served_beside_others_and_the_sentence_says_why():
    model = build(DEEPSEEK)
    attach(model, name="plain", targets=default_targets(DEEPSEEK))
    attach(model, name="wide", targets=("kv_b_proj",))
    require_servable(model, "plain")
    with pytest.raises(ConfigError, match=r"'wide' adapts kv_b_proj, which decoding .* merge it"):
        require_servable(model, "wide")
    routing = routing_of(model)
    with routing.using_rows(torch.tensor([0, -1, -1, 0])):
        decode_all(model, IDS)
    with (
        routing.using_rows(torch.tensor([0, 1, -1, 0])),
        pytest.raises(ConfigError, match="adapts kv_b_proj"),
    ):
        decode_all(model, IDS)
