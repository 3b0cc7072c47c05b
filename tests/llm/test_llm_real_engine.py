import asyncio

import pytest
import torch
from scripted_engine import TOKENIZER

from tenth.base.errors import ConfigError
from tenth.base.records import Finish
from tenth.checkpoint.model_dir import load_model, save_model
from tenth.engine.engine import Engine
from tenth.engine.request import SamplingParams
from tenth.engine.settings import EngineSettings
from tenth.llm.async_llm import AsyncLLM
from tenth.llm.llm import LLM
from tenth.model.config import GqaConfig, ModelConfig
from tenth.model.transformer import Transformer, initialise

CONFIG = ModelConfig(
    name="small",
    vocab_size=TOKENIZER.vocab_size,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=48,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=16),
    max_position_embeddings=256,
)
SETTINGS = EngineSettings(max_sequences=4, max_batch_tokens=32, cache_bytes=2**20)
PARAMS = SamplingParams(max_new_tokens=40, n=3, seed=5)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("small") / "model"
    model = initialise(Transformer(CONFIG), generator=torch.Generator().manual_seed(0))
    save_model(directory, model, tokenizer=TOKENIZER)
    return directory


@pytest.fixture(scope="module")
def llm(model_dir):
    return LLM(model_dir, dtype=torch.float32, settings=SETTINGS)


def is_idle(engine) -> bool:
    stats = engine.stats()
    return stats.running == stats.waiting == 0 and stats.free_blocks == stats.total_blocks


def test_text_and_ids_are_what_the_engine_samples_decoded(llm, model_dir):
    prompts = ["hello", "The answer is", "hello"]
    ids = [[TOKENIZER.bos_id, *TOKENIZER.encode(prompt)] for prompt in prompts]
    params = SamplingParams(max_new_tokens=40, n=3, seed=5, stop_ids=(TOKENIZER.eos_id,))
    expected = Engine(load_model(model_dir, dtype=torch.float32), SETTINGS).generate(ids, params)
    outputs = llm.generate(prompts, PARAMS)
    for output, group in zip(outputs, expected, strict=True):
        assert [each.ids for each in output.samples] == [each.ids for each in group]
        assert [each.text for each in output.samples] == [TOKENIZER.decode(each.ids) for each in group]
        assert [each.logprobs for each in output.samples] == [each.logprobs for each in group]
        assert [each.finish for each in output.samples] == [each.finish for each in group]


def test_a_stop_string_ends_one_sample_and_changes_no_other(llm):
    (free,) = llm.generate("hello", PARAMS)
    stop = free.samples[1].text[10:13]
    (stopped,) = llm.generate("hello", PARAMS, stop=[stop])
    for whole, cut in zip(free.samples, stopped.samples, strict=True):
        assert cut.text == whole.text.partition(stop)[0]
        assert cut.ids == whole.ids[: len(cut.ids)]
        assert (cut.finish is Finish.STOP) or stop not in whole.text
    assert is_idle(llm.requests.engine)


def test_a_prompt_that_can_never_run_is_refused_before_the_others_begin(llm):
    before = llm.requests.engine.stats()
    with pytest.raises(ConfigError, match="prompt 1 has 257 tokens and may grow by 40"):
        llm.generate(["hello", [5] * 257], PARAMS)
    assert llm.requests.engine.stats() == before


def test_many_tasks_get_what_they_would_have_got_alone_while_others_are_cancelled(llm, model_dir):
    prompts = ["hello", "The answer is", "42", "User: world"] * 3
    alone = {prompt: llm.generate(prompt, PARAMS)[0] for prompt in set(prompts)}

    async def main():
        async with AsyncLLM(model_dir, dtype=torch.float32, settings=SETTINGS) as shared:
            doomed = [asyncio.create_task(shared.generate("x", PARAMS)) for _ in range(5)]
            tasks = [asyncio.create_task(shared.generate(prompt, PARAMS)) for prompt in prompts]
            await asyncio.sleep(0)
            for task in doomed:
                task.cancel()
            outputs = await asyncio.gather(*tasks)
            assert await shared.call(lambda: is_idle(shared.engine))
            return outputs

    outputs = asyncio.run(main())
    for prompt, output in zip(prompts, outputs, strict=True):
        assert [each.ids for each in output.samples] == [each.ids for each in alone[prompt].samples]
        assert [each.text for each in output.samples] == [each.text for each in alone[prompt].samples]


def test_a_prefix_is_found_on_disk_after_both_ways_of_closing(model_dir, tmp_path):
    settings = EngineSettings(max_sequences=4, cache_bytes=2**20, spill_dir=tmp_path / "spilled")
    prompt, params = [*range(TOKENIZER.eos_id + 1, TOKENIZER.eos_id + 101)], SamplingParams(max_new_tokens=3)

    async def ask() -> int:
        async with AsyncLLM(model_dir, dtype=torch.float32, settings=settings) as llm:
            return (await llm.generate(prompt, params)).samples[0].cached_tokens

    assert asyncio.run(ask()) == 0
    with LLM(model_dir, dtype=torch.float32, settings=settings) as llm:
        assert llm.generate([prompt], params)[0].samples[0].cached_tokens == 64
    assert asyncio.run(ask()) == 64
