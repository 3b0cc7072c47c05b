"""GGUF files: what llama.cpp answers to them, what comes back out of them, and in which numbers."""

import dataclasses
import hashlib
import itertools
import json
import math
import resource
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.llama_models import (
    CONFIGS,
    GOLDEN,
    NEW_TOKENS,
    SHOWN_LOGITS,
    SHOWN_PLACES,
    MemorySource,
    build_model,
    prompt_ids,
    source_of,
)
from tenth.base.errors import CheckpointError, ConfigError
from tenth.checkpoint.gguf_export import export_gguf
from tenth.checkpoint.gguf_reader import gguf_chat_template, gguf_tokenizer, open_gguf
from tenth.checkpoint.gguf_writer import FILE_TYPES, write_gguf
from tenth.checkpoint.model_dir import load_model, save_model
from tenth.checkpoint.names import expected_hf
from tenth.cli.main import commands
from tenth.engine.engine import Engine
from tenth.engine.request import SamplingParams
from tenth.model.config import YarnConfig
from tenth.tokenizer.chat import Template
from tenth.tokenizer.train import train_bpe

ANSWERS = json.loads(GOLDEN.read_text(encoding="utf-8"))
STORIES = Path(__file__).parents[2].parent / "shared" / "data" / "checkpoints" / "stories260K"
needs_stories = pytest.mark.skipif(not STORIES.exists(), reason="the optional ../shared/data is not here")
NO_VOCABULARY = {"tokenizer.ggml.model": "none"}
every_network = pytest.mark.parametrize("name", CONFIGS)
every_type = pytest.mark.parametrize("file_type", FILE_TYPES)


def written(path: Path, name: str, file_type: str = "f32") -> Path:
    config = CONFIGS[name]
    write_gguf(path, config, source_of(build_model(config)), file_type=file_type, beside=NO_VOCABULARY)
    return path


def logits_of(model, ids):
    with torch.no_grad():
        return model.logits(model(torch.tensor([ids])))[0]


# llama.cpp


@every_network
def test_our_engine_continues_a_prompt_as_llama_cpp_does(name):
    params = SamplingParams(max_new_tokens=NEW_TOKENS, temperature=0)
    ((answer,),) = Engine(build_model(CONFIGS[name])).generate([prompt_ids(CONFIGS[name])], params)
    assert list(answer.ids) == ANSWERS["networks"][name]["greedy"]


@every_network
def test_logits_are_those_of_llama_cpp(name):
    logits = logits_of(build_model(CONFIGS[name]), prompt_ids(CONFIGS[name]))
    expected = torch.tensor(ANSWERS["networks"][name]["logits"])
    torch.testing.assert_close(logits[list(SHOWN_PLACES), :SHOWN_LOGITS], expected, atol=1e-4, rtol=0)


@every_network
@every_type
def test_files_are_the_ones_that_llama_cpp_was_given(name, file_type, tmp_path):
    data = written(tmp_path / "a.gguf", name, file_type).read_bytes()
    assert hashlib.sha256(data).hexdigest() == ANSWERS["networks"][name]["sha256"][file_type]


@needs_stories
def test_a_trained_network_loses_less_than_half_a_percent_of_perplexity_in_q8_0():
    perplexity = ANSWERS["stories260K"]["perplexity"]
    ids = ANSWERS["stories260K"]["ids"]
    logits = logits_of(load_model(STORIES / "stories260K.bin", dtype=torch.float32), ids)
    ours = math.exp(torch.nn.functional.cross_entropy(logits[:-1].double(), torch.tensor(ids[1:])))
    assert perplexity["f32"] == pytest.approx(ours, rel=1e-5)
    assert perplexity["q8_0"] == pytest.approx(ours, rel=0.005)
    assert perplexity["q4_0"] == pytest.approx(ours, rel=0.15)  # small networks lose more by four bits


@needs_stories
def test_llama_cpp_tells_the_golden_story_from_the_exported_file():
    golden = json.loads((STORIES / "golden.json").read_text())["greedy_ids_from_bos"]
    assert [1, *ANSWERS["stories260K"]["greedy"]] == golden
    assert ANSWERS["stories260K"]["encoded"] == ANSWERS["stories260K"]["ids"]


# and back


@every_network
def test_a_network_in_float32_comes_back_with_the_same_bits(name, tmp_path):
    model = build_model(dataclasses.replace(CONFIGS[name], num_nextn_predict_layers=0))
    back = load_model(written(tmp_path / "a.gguf", name), dtype=torch.float32)
    ids = prompt_ids(CONFIGS[name])
    assert torch.equal(logits_of(back, ids), logits_of(model, ids))


@every_network
def test_a_configuration_comes_back_but_for_what_only_training_uses(name, tmp_path):
    found = open_gguf(written(tmp_path / "a.gguf", name)).config
    assert found == dataclasses.replace(
        CONFIGS[name],
        num_nextn_predict_layers=0,
        initializer_range=found.initializer_range,
    )


@every_network
@every_type
def test_a_file_holds_every_tensor_of_the_network_under_its_hugging_face_name(name, file_type, tmp_path):
    checkpoint = open_gguf(written(tmp_path / "a.gguf", name, file_type))
    shapes = {key: info.shape for key, info in checkpoint.source.infos().items()}
    assert shapes == dict(expected_hf(checkpoint.config, mtp=False))
    for key, info in checkpoint.source.infos().items():
        tensor = checkpoint.source.read(key)
        assert (tensor.shape, tensor.dtype) == (info.shape, info.dtype)


def test_bf16_comes_back_as_bf16_with_the_same_bits(tmp_path):
    source = source_of(build_model(CONFIGS["deepseek v3"]))
    rounded = MemorySource({name: source.read(name).bfloat16() for name in source.infos()})
    config = CONFIGS["deepseek v3"]
    write_gguf(tmp_path / "a.gguf", config, rounded, file_type="bf16", beside=NO_VOCABULARY)
    back = open_gguf(tmp_path / "a.gguf").source
    for name in back.infos():
        assert torch.equal(back.read(name), rounded.read(name).to(back.infos()[name].dtype))


# Half a step of rounding in Q8_0. Q4_0 reaches 8 steps on the side of the largest number, 7 on the other. And
# the scale itself is rounded to float16: by 2**-11 of all the steps.
@pytest.mark.parametrize(("file_type", "steps", "error_steps"), [("q8_0", 127, 0.5), ("q4_0", 8, 1.0)])
def test_blocks_come_back_within_a_step_of_their_scale(file_type, steps, error_steps, tmp_path):
    name = "model.layers.0.self_attn.o_proj.weight"
    original = source_of(build_model(CONFIGS["llama"])).read(name)
    found = open_gguf(written(tmp_path / "a.gguf", "llama", file_type)).source.read(name)
    blocks, error = original.view(-1, 32), (found - original).view(-1, 32).abs()
    step = blocks.abs().amax(1, keepdim=True) / steps
    assert bool((error <= step * (error_steps + steps * 2**-11)).all())


@pytest.mark.parametrize("file_type", ["q8_0", "q4_0"])
def test_norms_routers_and_biases_stay_exact_in_every_file(file_type, tmp_path):
    source = source_of(build_model(CONFIGS["deepseek v3"]))
    back = open_gguf(written(tmp_path / "a.gguf", "deepseek v3", file_type)).source
    exact = [name for name in back.infos() if torch.equal(back.read(name), source.read(name))]
    assert {name.rpartition("layers.2.")[2] for name in exact if "layers.2." in name} == {
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
        "self_attn.q_a_layernorm.weight",
        "self_attn.kv_a_layernorm.weight",
        "mlp.gate.weight",
        "mlp.gate.e_score_correction_bias",
    }


def test_rows_that_are_no_multiple_of_a_block_become_float16(tmp_path):
    checkpoint = open_gguf(written(tmp_path / "a.gguf", "deepseek v3", "q8_0"))
    assert checkpoint.stored["blk.1.ffn_down_exps.weight"].dtype == torch.float16  # rows of 48
    assert checkpoint.stored["blk.1.ffn_up_exps.weight"].shape == (8, 48, 64 // 32 * 34)


def test_the_head_of_a_q4_0_file_keeps_eight_bits(tmp_path):
    apart = open_gguf(written(tmp_path / "a.gguf", "llama", "q4_0")).stored
    tied = open_gguf(written(tmp_path / "b.gguf", "qwen2", "q4_0")).stored
    assert apart["output.weight"].shape == (96, 64 // 32 * 34)
    assert apart["token_embd.weight"].shape == (96, 64 // 32 * 18)
    assert tied["token_embd.weight"].shape == (96, 64 // 32 * 34)


def test_fused_experts_are_written_like_single_ones(tmp_path):
    name = "qwen3 moe"
    model = build_model(CONFIGS[name])
    tensors = {key: source_of(model).read(key) for key in source_of(model).infos()}
    fused = {key: tensor for key, tensor in tensors.items() if ".experts." not in key}
    for layer_id in range(2):
        stem = f"model.layers.{layer_id}.mlp.experts."
        parts = {
            part: torch.stack([tensors[f"{stem}{i}.{part}_proj.weight"] for i in range(8)])
            for part in ("gate", "up", "down")
        }
        fused[f"{stem}gate_up_proj"] = torch.cat((parts["gate"], parts["up"]), dim=1)
        fused[f"{stem}down_proj"] = parts["down"]
    target = tmp_path / "fused.gguf"
    write_gguf(target, CONFIGS[name], MemorySource(fused), file_type="q8_0", beside=NO_VOCABULARY)
    assert target.read_bytes() == written(tmp_path / "single.gguf", name, "q8_0").read_bytes()


def test_half_split_rows_of_deepseek_are_interleaved(tmp_path):
    """What transformers writes with rope_interleave false gives the same file."""
    from tenth.model.rope import interleaved_to_half

    name = "deepseek v3"
    source = source_of(build_model(CONFIGS[name]))
    tensors = {key: source.read(key) for key in source.infos()}
    for key, tensor in tensors.items():
        if key.endswith(("q_b_proj.weight", "kv_a_proj_with_mqa.weight")):
            tensors[key] = interleaved_to_half(tensor, 16, head_dim=48)  # nope 32 or kv 32, and 16
    target = tmp_path / "half.gguf"
    write_gguf(
        target,
        CONFIGS[name],
        MemorySource(tensors),
        file_type="f32",
        is_interleaved=False,
        beside=NO_VOCABULARY,
    )
    assert target.read_bytes() == written(tmp_path / "a.gguf", name).read_bytes()


# what llama.cpp could not compute, and what goes wrong


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("deepseek v3", {"num_hidden_layers": 27}, "DeepSeek-V2-Lite"),
        ("deepseek v3", {"moe": {"n_shared_experts": 0}}, "shared"),
        (
            "deepseek v2",
            {"moe": {"n_group": 4, "topk_group": 2, "topk_method": "group_limited_greedy"}},
            "best two",
        ),
        ("qwen3 moe", {"moe": {"norm_topk_prob": False}}, "normalises"),
        ("qwen3", {"rope_scaling": CONFIGS["llama 3"].rope_scaling}, "llama files only"),
        (
            "deepseek v3",
            {"rope_scaling": YarnConfig(factor=4.0, original_max_position_embeddings=32, beta_fast=16.0)},
            "beta_fast = 16",
        ),
        (
            "deepseek v3",
            {"rope_scaling": YarnConfig(factor=4.0, original_max_position_embeddings=32, mscale=0.5)},
            "mscale = 0.5",
        ),
    ],
)
def test_a_network_that_llama_cpp_would_compute_otherwise_is_refused(name, changes, reason, tmp_path):
    config = CONFIGS[name]
    changes = {
        key: dataclasses.replace(getattr(config, key), **value) if isinstance(value, dict) else value
        for key, value in changes.items()
    }
    other = dataclasses.replace(config, **changes)
    source = source_of(build_model(other))
    with pytest.raises(ConfigError, match=reason):
        write_gguf(tmp_path / "a.gguf", other, source, file_type="f32", beside=NO_VOCABULARY)
    assert not list(tmp_path.iterdir())


def test_a_number_that_is_not_finite_is_named_and_leaves_nothing_behind(tmp_path):
    source = source_of(build_model(CONFIGS["llama"]))
    tensors = {key: source.read(key).clone() for key in source.infos()}
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = math.nan
    (tmp_path / "a.gguf").write_bytes(b"old")
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj"):
        write_gguf(
            tmp_path / "a.gguf",
            CONFIGS["llama"],
            MemorySource(tensors),
            file_type="q8_0",
            beside=NO_VOCABULARY,
        )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.gguf": b"old"}


@pytest.mark.parametrize("file_type", ["q8_0", "q4_0"])
def test_a_number_that_a_scale_cannot_hold_is_refused(file_type, tmp_path):
    source = source_of(build_model(CONFIGS["llama"]))
    tensors = {key: source.read(key).clone() for key in source.infos()}
    tensors["lm_head.weight"][0, 0] = 1e8
    with pytest.raises(CheckpointError, match="export it as f32"):
        write_gguf(
            tmp_path / "a.gguf",
            CONFIGS["llama"],
            MemorySource(tensors),
            file_type=file_type,
            beside=NO_VOCABULARY,
        )


def test_a_checkpoint_that_lacks_a_tensor_is_refused_before_anything_is_written(tmp_path):
    source = source_of(build_model(CONFIGS["qwen3 moe"]))
    tensors = {key: source.read(key) for key in source.infos()}
    del tensors["model.layers.1.mlp.experts.7.up_proj.weight"]
    with pytest.raises(CheckpointError, match=r"experts\.7\.up_proj\.weight' is missing"):
        write_gguf(
            tmp_path / "a.gguf",
            CONFIGS["qwen3 moe"],
            MemorySource(tensors),
            file_type="f32",
            beside=NO_VOCABULARY,
        )
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="free some space"):
            written(tmp_path / "a.gguf", "llama")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.gguf": b"old"}


# the command


def test_export_writes_weights_vocabulary_and_template_of_a_directory(tmp_path):
    tokenizer = train_bpe(["one two three 1 2 3"] * 3, vocab_size=300)
    config = dataclasses.replace(CONFIGS["deepseek v3"], vocab_size=320)
    model = build_model(config)
    save_model(tmp_path / "model", model, tokenizer=tokenizer, template=Template.ZERO_SHORT)
    target = tmp_path / "model.gguf"
    done = CliRunner().invoke(
        commands, ["export", str(tmp_path / "model"), "--type", "f32", "--out", str(target)]
    )
    assert done.exit_code == 0, done.output
    assert "tenth cuts texts" in done.output
    assert gguf_tokenizer(target).spec() == tokenizer.spec()
    assert "Assistant:" in (gguf_chat_template(target) or "")
    ids = prompt_ids(config)
    assert torch.equal(logits_of(load_model(target, dtype=torch.float32), ids), logits_of(model, ids))


@pytest.mark.parametrize("name", ["deepseek v3", "qwen3 moe", "llama 3"])
@every_type
def test_a_file_that_is_exported_again_is_the_same_file(name, file_type, tmp_path):
    tokenizer = train_bpe(["one two three 1 2 3"] * 3, vocab_size=300)
    model = build_model(dataclasses.replace(CONFIGS[name], vocab_size=320))
    save_model(tmp_path / "model", model, tokenizer=tokenizer, template=Template.DEEPSEEK)
    paths = [tmp_path / "model", tmp_path / "once.gguf", tmp_path / "twice.gguf"]
    for before, after in itertools.pairwise(paths):
        export_gguf(before, after, file_type=file_type, on_progress=lambda _done, _total: None)
    assert paths[1].read_bytes() == paths[2].read_bytes()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--type", "q5_k"], "f32, bf16, q8_0, q4_0"),
        (["--format", "onnx"], "it is gguf"),
        (["--out", "model.bin"], "end it in .gguf"),
        (["--out", "made.gguf"], "made.gguf exists"),
    ],
)
def test_export_says_what_it_does_not_write(options, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("made.gguf").write_bytes(b"mine")
    tokenizer = train_bpe(["one"], vocab_size=270)
    config = dataclasses.replace(CONFIGS["qwen2"], vocab_size=300)
    save_model(tmp_path / "model", build_model(config), tokenizer=tokenizer, template=Template.PLAIN)
    done = CliRunner().invoke(commands, ["export", str(tmp_path / "model"), *options])
    assert isinstance(done.exception, ConfigError)
    assert reason in str(done.exception)
    assert Path("made.gguf").read_bytes() == b"mine"
