"""PEFT directories: what is written is read back; anything else is one sentence, and nothing is attached."""

import contextlib
import json

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import CheckpointError, ConfigError, TenthError
from tenth.checkpoint.model_dir import save_model
from tenth.checkpoint.peft import (
    CONFIG,
    PICKLE,
    WEIGHTS,
    load_adapter,
    merge_adapter_source,
    save_adapter,
)
from tenth.checkpoint.tensor_source import TensorInfo
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig
from tenth.model.lora import LoraConfig, adapter_names, attach_lora, lora_parameters, lora_places, routing_of
from tenth.model.transformer import Transformer, initialise

LLAMA = ModelConfig(
    name="llama",
    vocab_size=16,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=20,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=6),
    max_position_embeddings=32,
)
DEEPSEEK = ModelConfig(
    name="deepseek",
    vocab_size=16,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=20,
    mla=MlaConfig(q_lora_rank=8, kv_lora_rank=5, qk_nope_head_dim=3, qk_rope_head_dim=4, v_head_dim=6),
    moe=MoeConfig(n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=7),
    max_position_embeddings=32,
)
Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


def build(config: ModelConfig = LLAMA) -> Transformer:
    return initialise(Transformer(config), generator=torch.Generator().manual_seed(0))


def trained(config: ModelConfig = LLAMA, *, targets=None, use_rslora=False) -> Transformer:
    targets = targets or tuple(dict.fromkeys(place.target for place in lora_places(config)))
    model = build(config)
    attach_lora(model, LoraConfig(rank=2, alpha=3.0, targets=targets, use_rslora=use_rslora), name="here")
    for parameter in lora_parameters(model, "here").values():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture
def adapter(tmp_path):
    """A sound directory over LLAMA's q_proj and down_proj."""
    save_adapter(tmp_path, trained(targets=("q_proj", "down_proj")), "here", base_model="a/base")
    return tmp_path


def change_config(directory, **values) -> None:
    config = json.loads((directory / CONFIG).read_text())
    (directory / CONFIG).write_text(json.dumps(config | values))


def change_tensors(directory, change) -> None:
    tensors = safetensors.torch.load_file(directory / WEIGHTS)
    change(tensors)
    safetensors.torch.save_file(tensors, directory / WEIGHTS)


def assert_refused(directory, match: str, *, config: ModelConfig = LLAMA) -> None:
    model = build(config)
    with pytest.raises(CheckpointError, match=match):
        load_adapter(model, directory)
    assert adapter_names(model) == ()


# there and back


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("config", [LLAMA, DEEPSEEK], ids=lambda config: config.name)
def test_an_adapter_comes_back_bit_for_bit_under_any_name(config, use_rslora, tmp_path):
    model, other = trained(config, use_rslora=use_rslora), build(config)
    save_adapter(tmp_path / "adapter", model, "here", base_model="a/base")
    load_adapter(other, tmp_path / "adapter", name="there")
    assert routing_of(other).configs["there"] == routing_of(model).configs["here"]
    assert routing_of(other).active == "there"
    expected = lora_parameters(model, "here")
    for name, parameter in lora_parameters(other, "there").items():
        assert torch.equal(parameter, expected[name.replace(".there.", ".here.")])


def test_the_files_say_what_peft_wants_to_know(adapter):
    config = json.loads((adapter / CONFIG).read_text())
    assert config["peft_type"] == "LORA"
    assert config["base_model_name_or_path"] == "a/base"
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (2, 3, ["q_proj", "down_proj"])
    tensors = safetensors.torch.load_file(adapter / WEIGHTS)
    assert {name: list(tensor.shape) for name, tensor in tensors.items() if ".0." in name} == {
        f"{Q}A.weight": [2, 12],
        f"{Q}B.weight": [12, 2],
        "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight": [2, 20],
        "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight": [12, 2],
    }


def test_rotary_rows_are_interleaved_in_the_file_unless_the_base_has_them_otherwise(tmp_path):
    # kv_a rows: 5 of the latent, then the rotary ones: ours in halves, 5 6 | 7 8, theirs in pairs, 5 7 | 6 8
    model = trained(DEEPSEEK, targets=("kv_a_proj_with_mqa",))
    path = "layers.0.attention.qkv_a.adapters.here.kv_a_proj_with_mqa.lora_B"
    model.get_parameter(path).data = torch.arange(9.0).unsqueeze(1).expand(9, 2).clone()
    name = "base_model.model.model.layers.0.self_attn.kv_a_proj_with_mqa.lora_B.weight"
    for is_interleaved, expected in ((True, [0, 1, 2, 3, 4, 5, 7, 6, 8]), (False, list(range(9)))):
        save_adapter(tmp_path / "a", model, "here", base_model="a/base", rope_interleaved=is_interleaved)
        assert safetensors.torch.load_file(tmp_path / "a" / WEIGHTS)[name][:, 0].tolist() == expected
        other = load_adapter(build(DEEPSEEK), tmp_path / "a", name="here", rope_interleaved=is_interleaved)
        assert torch.equal(other.get_parameter(path), model.get_parameter(path))


def test_what_peft_writes_besides_does_not_disturb(adapter):
    change_config(
        adapter,
        lora_dropout=0.1,
        modules_to_save=None,
        rank_pattern={},
        peft_version="0.21.2",
        target_modules=["model.layers.0.self_attn.q_proj", "down_proj", "not_in_this_network"],
    )
    load_adapter(build(), adapter)
    change_config(adapter, target_modules=".*(q_proj|down_proj)")
    load_adapter(build(), adapter)


def test_a_model_with_an_adapter_is_not_saved_as_if_it_had_none(tmp_path):
    with pytest.raises(ConfigError, match=r"adapters lie beside the model's weights \(here\); merge_lora"):
        save_model(tmp_path / "model", trained())
    assert not (tmp_path / "model").exists()


# what is no plain adapter


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True),
        ("bias", "all"),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 4}),
        ("alpha_pattern", {"q_proj": 4}),
        ("layers_to_transform", [0]),
        ("init_lora_weights", "pissa"),
        ("fan_in_fan_out", True),
        ("target_parameters", ["experts.gate_up_proj"]),
    ],
)
def test_more_than_plain_lora_is_refused_by_name(adapter, key, value):
    change_config(adapter, **{key: value})
    assert_refused(adapter, f"{key} = .* is not supported; merge it")


def test_another_method_is_refused(adapter):
    change_config(adapter, peft_type="IA3")
    assert_refused(adapter, "peft_type = 'IA3', and only LORA")


@pytest.mark.parametrize(
    "values", [{"r": 0}, {"r": "2"}, {"r": None}, {"lora_alpha": -1}, {"lora_alpha": 1e400}]
)
def test_ranks_and_scales_that_are_none_are_refused(adapter, values):
    change_config(adapter, **values)
    assert_refused(adapter, "must be numbers above 0")


def test_a_pickle_is_refused_with_the_way_around(tmp_path):
    (tmp_path / CONFIG).write_text("{}")
    (tmp_path / PICKLE).write_bytes(b"\x80\x04")
    assert_refused(
        tmp_path, "is a pickle, and reading one runs whatever program it holds; load the adapter with"
    )


def test_a_directory_without_an_adapter_is_refused(tmp_path):
    assert_refused(tmp_path, f"holds no {WEIGHTS}")


# tensors that do not fit


def test_another_rank_than_the_file_says_is_refused(adapter):
    change_config(adapter, r=4)
    assert_refused(adapter, "have ranks 2 and 2, and adapter_config.json says r = 4")


def test_a_missing_factor_is_named(adapter):
    change_tensors(adapter, lambda tensors: tensors.pop(f"{Q}B.weight"))
    assert_refused(adapter, f"'{Q}B.weight' is missing")


def test_a_missing_layer_is_named(adapter):
    change_tensors(adapter, lambda tensors: [tensors.pop(f"{Q}{factor}.weight") for factor in "AB"])
    assert_refused(adapter, r"1 adapted modules are missing \(first 'model.layers.0.self_attn.q_proj'\)")


def test_a_target_without_any_tensor_is_missed(adapter):
    change_config(adapter, target_modules=["q_proj", "down_proj", "up_proj"])
    assert_refused(adapter, r"2 adapted modules are missing \(first 'model.layers.0.mlp.up_proj'\)")


@pytest.mark.parametrize(
    "module", ["model.layers.0.mlp.experts.3.up_proj", "model.layers.7.mlp.up_proj", "lm_head"]
)
def test_a_module_that_the_network_does_not_adapt_is_named(adapter, module):
    def add(tensors):
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.zeros(2, 12)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.zeros(20, 2)

    change_tensors(adapter, add)
    assert_refused(adapter, f"adapts '{module}', which model 'llama' does not have")


@pytest.mark.parametrize(
    "name", ["base_model.model.lm_head.weight", f"{Q}magnitude_vector", "x.lora_A.weight"]
)
def test_a_tensor_that_is_no_factor_is_named(adapter, name):
    change_tensors(adapter, lambda tensors: tensors.update({name: torch.zeros(2, 12)}))
    assert_refused(adapter, f"'{name}' is no factor")


def test_an_adapter_of_another_base_is_refused_with_both_shapes(adapter):
    change_tensors(adapter, lambda tensors: tensors.update({f"{Q}A.weight": torch.zeros(2, 99)}))
    assert_refused(adapter, r"as a matrix of \[12, 99\], and in model 'llama' it is \[12, 12\]")


def test_numbers_that_are_none_are_refused(adapter):
    change_tensors(adapter, lambda tensors: tensors.update({f"{Q}B.weight": torch.full((12, 2), torch.nan)}))
    assert_refused(adapter, f"'{Q}B.weight' holds NaN")


def test_whole_numbers_are_refused(adapter):
    change_tensors(adapter, lambda tensors: tensors.update({f"{Q}A.weight": torch.zeros(2, 12).int()}))
    assert_refused(adapter, "a factor is a matrix of floating-point numbers")


@given(file=st.sampled_from([CONFIG, WEIGHTS]), data=st.data())
def test_damaged_files_are_one_sentence_or_an_adapter(tmp_path_factory, file, data):
    directory = tmp_path_factory.mktemp("adapter")
    save_adapter(directory, trained(targets=("q_proj",)), "here", base_model="a/base")
    content = bytearray((directory / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (directory / file).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(TenthError):  # nothing else may come out
        load_adapter(build(), directory)


# added into the base


class Tensors:
    """A state dict as a source of tensors."""

    def __init__(self, tensors):
        self.tensors = tensors
        self.reads = []

    def infos(self):
        return {name: TensorInfo(dtype=t.dtype, shape=tuple(t.shape)) for name, t in self.tensors.items()}

    def read(self, name):
        self.reads.append(name)
        return self.tensors[name]


BASE = {
    **{f"model.layers.{layer}.self_attn.q_proj.weight": torch.ones(12, 12) for layer in (0, 1)},
    **{f"model.layers.{layer}.mlp.down_proj.weight": torch.ones(12, 20).bfloat16() for layer in (0, 1)},
    "model.norm.weight": torch.ones(12),
}


def test_a_source_with_an_adapter_adds_its_product_and_leaves_the_rest(adapter):
    base = Tensors(BASE)
    merged = merge_adapter_source(base, adapter)
    assert base.reads == []
    assert merged.infos() == base.infos()
    factors = safetensors.torch.load_file(adapter / WEIGHTS)
    expected = 1 + 3 / 2 * factors[f"{Q}B.weight"] @ factors[f"{Q}A.weight"]
    torch.testing.assert_close(merged.read("model.layers.0.self_attn.q_proj.weight"), expected)
    assert merged.read("model.layers.1.mlp.down_proj.weight").dtype == torch.bfloat16
    assert merged.read("model.norm.weight") is BASE["model.norm.weight"]
    assert len(base.reads) == 3


def test_a_source_may_hold_modules_that_no_network_of_ours_adapts(tmp_path):
    names = [f"base_model.model.model.layers.0.mlp.experts.3.up_proj.lora_{factor}.weight" for factor in "AB"]
    factors = dict(zip(names, (torch.ones(1, 2), torch.ones(3, 1)), strict=True))
    safetensors.torch.save_file(factors, tmp_path / WEIGHTS)
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 4}))
    name = "model.layers.0.mlp.experts.3.up_proj.weight"
    merged = merge_adapter_source(Tensors({name: torch.zeros(3, 2)}), tmp_path)
    assert torch.equal(merged.read(name), torch.full((3, 2), 4.0))


def test_a_source_without_the_adapted_matrix_is_refused(adapter):
    rest = {name: tensor for name, tensor in BASE.items() if "layers.1" not in name}
    with pytest.raises(CheckpointError, match=r"adapts 'model.layers.1.* the model has no such matrix"):
        merge_adapter_source(Tensors(rest), adapter)
    other = BASE | {"model.layers.0.self_attn.q_proj.weight": torch.ones(12, 13)}
    with pytest.raises(
        CheckpointError, match=r"a matrix of \[12, 12\], and the model holds one of \[12, 13\]"
    ):
        merge_adapter_source(Tensors(other), adapter)
