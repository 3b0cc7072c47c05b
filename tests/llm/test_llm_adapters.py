import asyncio

import pytest
import torch
from scripted_engine import TOKENIZER

from tenth.base.errors import CheckpointError, ConfigError
from tenth.checkpoint.model_dir import load_model, save_model
from tenth.checkpoint.peft import load_adapter, save_adapter
from tenth.checkpoint.quantized_dir import quantize_directory
from tenth.engine.request import SamplingParams
from tenth.engine.settings import EngineSettings
from tenth.llm.async_llm import AsyncLLM
from tenth.llm.llm import LLM
from tenth.model.config import GqaConfig, ModelConfig
from tenth.model.lora import LoraConfig, attach_lora, default_targets, lora_parameters, merge_lora
from tenth.model.transformer import Transformer, initialise

CONFIG = ModelConfig(
    name="small",
    vocab_size=TOKENIZER.vocab_size,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=16),
    max_position_embeddings=256,
)
SETTINGS = EngineSettings(max_sequences=4, max_batch_tokens=32, cache_bytes=2**20)
PARAMS = SamplingParams(max_new_tokens=20, n=2, seed=5)
NAMES = ("poet", "judge")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("small") / "model"
    model = initialise(Transformer(CONFIG), generator=torch.Generator().manual_seed(0))
    save_model(directory, model, tokenizer=TOKENIZER)
    return directory


@pytest.fixture(scope="module")
def adapters(model_dir, tmp_path_factory):
    """Two PEFT directories of different ranks."""
    directories = {}
    for number, name in enumerate(NAMES):
        model = load_model(model_dir, dtype=torch.float32)
        attach_lora(model, LoraConfig(rank=2 + number, alpha=4.0, targets=default_targets(CONFIG)))
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in lora_parameters(model).values():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        directories[name] = tmp_path_factory.mktemp("adapters") / name
        save_adapter(directories[name], model, base_model=str(model_dir))
    return directories


@pytest.fixture(scope="module")
def llm(model_dir, adapters):
    return LLM(model_dir, dtype=torch.float32, settings=SETTINGS, adapters=adapters)


def texts(output):
    return [each.text for each in output.samples]


def test_an_adapter_by_name_writes_what_the_merged_model_writes(llm, model_dir, adapters, tmp_path):
    written = {}
    for name, directory in adapters.items():
        model = load_adapter(load_model(model_dir, dtype=torch.float32), directory)
        save_model(tmp_path / name, merge_lora(model), tokenizer=TOKENIZER)
        written[name] = llm.generate("hello", PARAMS, adapter=name)
        alike = LLM(tmp_path / name, dtype=torch.float32, settings=SETTINGS).generate("hello", PARAMS)
        assert texts(written[name][0]) == texts(alike[0])
    base = LLM(model_dir, dtype=torch.float32, settings=SETTINGS).generate("hello", PARAMS)
    assert texts(llm.generate("hello", PARAMS)[0]) == texts(base[0])
    assert len({str(texts(each[0])) for each in (base, *written.values())}) == 3


def test_conversations_and_streams_take_one_too(llm):
    single = SamplingParams(max_new_tokens=20, seed=5)
    prompt = llm.render([{"role": "user", "content": "hi"}])
    (wanted,) = llm.generate([prompt], single, adapter="judge")[0].samples
    assert llm.chat([{"role": "user", "content": "hi"}], single, adapter="judge").text == wanted.text
    streamed = "".join(piece.text for piece in llm.stream(prompt, single, adapter="judge"))
    assert len(streamed) == len(wanted.text)
    assert llm.chat([{"role": "user", "content": "hi"}], single).text != wanted.text


def test_many_tasks_share_the_steps_whatever_their_adapters(llm, model_dir, adapters):
    asked = [(prompt, name) for prompt in ("hello", "The answer is") for name in (None, *NAMES)]
    alone = [llm.generate(prompt, PARAMS, adapter=name)[0] for prompt, name in asked]

    async def main():
        async with AsyncLLM(model_dir, dtype=torch.float32, settings=SETTINGS, adapters=adapters) as shared:
            tasks = [shared.generate(prompt, PARAMS, adapter=name) for prompt, name in asked]
            return await asyncio.gather(*tasks)

    assert [texts(each) for each in asyncio.run(main())] == [texts(each) for each in alone]


def test_a_quantised_base_serves_them_as_well(model_dir, adapters, tmp_path):
    quantize_directory(model_dir, tmp_path / "int8", bits=8)
    llm = LLM(tmp_path / "int8", settings=SETTINGS, adapters=adapters)
    outputs = {name: texts(llm.generate("hello", PARAMS, adapter=name)[0]) for name in (None, *NAMES)}
    assert len({str(each) for each in outputs.values()}) == 3


def test_an_unknown_adapter_is_refused_before_anything_starts(llm, model_dir, tmp_path):
    before = llm.requests.engine.stats()
    with pytest.raises(ConfigError, match="adapter 'post', but this engine serves poet, judge"):
        llm.generate("hello", PARAMS, adapter="post")
    assert llm.requests.engine.stats() == before
    with pytest.raises(CheckpointError, match="nowhere"):
        LLM(model_dir, adapters={"poet": tmp_path / "nowhere"})


def test_an_adapter_in_the_place_of_the_model_is_called_one(adapters):
    with pytest.raises(CheckpointError, match="is a LoRA adapter and no whole model; merge the two first"):
        LLM(adapters["poet"])


def test_an_async_stream_refuses_an_unknown_adapter_at_once(model_dir, adapters):
    async def main():
        async with AsyncLLM(model_dir, settings=SETTINGS, adapters=adapters) as shared:
            with pytest.raises(ConfigError, match="serves poet, judge"):
                shared.stream("hello", PARAMS, adapter="post")

    asyncio.run(main())
