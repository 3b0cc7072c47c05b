"""The pool in this process: text and ids agree, and new weights are there once it is told."""

import torch
from scripted import make_tokenizer

from tenth.base.records import Finish
from tenth.engine.engine import Engine
from tenth.engine.request import SamplingParams
from tenth.model.lora import LoraConfig, attach_lora, default_targets, lora_parameters
from tenth.model.presets import preset
from tenth.model.transformer import Transformer, initialise
from tenth.rollout.pool import LocalPool

TOKENIZER = make_tokenizer()
PROMPTS = [TOKENIZER.encode("What is 1?"), TOKENIZER.encode("What?")]
PARAMS = SamplingParams(max_new_tokens=6, n=3, stop_ids=(TOKENIZER.eos_id,), seed=3)


def build():
    model = initialise(Transformer(preset("nano-zero")), generator=torch.Generator().manual_seed(0))
    return model, LocalPool(Engine(model), TOKENIZER)


def test_completions_come_in_order_with_their_text_and_log_probabilities():
    _, pool = build()
    groups = pool.sample(PROMPTS, PARAMS)
    assert [len(group) for group in groups] == [3, 3]
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for each in group:
            assert list(each.prompt_ids) == prompt
            assert each.text == TOKENIZER.decode(each.answer_ids)
            assert len(each.answer_logprobs) == len(each.answer_ids) <= 6
            assert (each.finish is Finish.STOP) == (each.answer_ids[-1] == TOKENIZER.eos_id)


def test_the_same_seed_gives_the_same_answers():
    _, pool = build()
    assert pool.sample(PROMPTS, PARAMS) == pool.sample(PROMPTS, PARAMS)


def test_new_weights_are_used_once_the_pool_is_told():
    model, pool = build()
    before = pool.sample(PROMPTS, PARAMS)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[TOKENIZER.eos_id] = 100.0 * model(torch.tensor([PROMPTS[0]]))[0, -1]
    pool.refresh_weights()
    after = pool.sample(PROMPTS[:1], PARAMS)
    assert before[0] != after[0]
    assert all(each.answer_ids == (TOKENIZER.eos_id,) for each in after[0])


def test_an_adapter_that_learns_is_sampled_from_as_it_is_now_and_its_base_stays():
    model, _ = build()
    attach_lora(model, LoraConfig(rank=2, alpha=2.0, targets=default_targets(model.config)))
    engine = Engine(model)
    pool, base = LocalPool(engine, TOKENIZER, adapter="default"), LocalPool(engine, TOKENIZER)
    untouched = base.sample(PROMPTS, PARAMS)
    assert pool.sample(PROMPTS, PARAMS) == untouched  # a new adapter does nothing
    with torch.no_grad():
        for parameter in lora_parameters(model).values():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    pool.refresh_weights()
    assert pool.sample(PROMPTS, PARAMS) != untouched
    assert base.sample(PROMPTS, PARAMS) == untouched
