"""One GRPO step on either side: sample 8 prompts × 8 answers × 64 tokens, reward, one optimizer step.

Why: both sides must do the same job on the 5M dense shape: the same prompts and reward, answers forced to
their full length, beta 0, token-level GRPO loss, one minibatch, clip at 1.0, fused AdamW. What differs: ours
hands the sampler's own log-probabilities to the loss and computes in bf16 over float32 masters; TRL trains
on-policy without asking for old log-probabilities (its own default), with gradient checkpointing off, which
its default leaves on.
In:  for the peer, its options.  Out: a side for workers.py.
Not here: who is compared with whom (grpo.py).
"""

import random
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.workers import Channel
from tenth.model.presets import preset

SHAPE, PROMPTS, SAMPLES, NEW_TOKENS, PROMPT_TOKENS = "dense-5m", 8, 8, 64, 32
LEARNING_RATE = 1e-5
FIRST_WORD = 3  # ids below are padding, start and end


def prompts() -> list[list[int]]:
    """The same on both sides."""
    rng = random.Random(1)
    vocabulary = preset(SHAPE).vocab_size
    return [[rng.randrange(FIRST_WORD, vocabulary) for _ in range(PROMPT_TOKENS)] for _ in range(PROMPTS)]


def reward(answer: Sequence[int]) -> float:
    """Share of odd ids: costs nothing and differs from sample to sample."""
    return sum(token % 2 for token in answer) / len(answer)


def ours(channel: Channel) -> None:
    """tenth: Engine.generate, then grpo_update."""
    from tenth.engine.engine import Engine
    from tenth.engine.request import SamplingParams
    from tenth.model.transformer import Transformer, initialise
    from tenth.training.grpo import grpo_update, weigh_rollouts
    from tenth.training.grpo_loss import GrpoConfig
    from tenth.training.optim import OptimConfig, WeightUpdater

    model = initialise(Transformer(preset(SHAPE)), generator=torch.Generator().manual_seed(0))
    model.to_compute_dtype(torch.bfloat16)
    updater = WeightUpdater(model, OptimConfig(lr=LEARNING_RATE, weight_decay=0.0))
    engine, config, asked = Engine(model), GrpoConfig(beta=0.0), prompts()
    number = 0

    def step() -> None:
        nonlocal number
        number += 1
        answers = engine.generate(asked, SamplingParams(max_new_tokens=NEW_TOKENS, n=SAMPLES, seed=number))
        rollouts = [
            _rollout(group_id, asked[group_id], answer, number)
            for group_id, group in enumerate(answers)
            for answer in group
        ]
        assert all(len(rollout.answer_ids) == NEW_TOKENS for rollout in rollouts)
        grpo_update(
            model, None, updater, weigh_rollouts(rollouts, config), config, micro_batch_tokens=1 << 14
        )
        engine.refresh_weights()

    step()
    channel.serve(step, {"parameters": sum(p.numel() for p in model.parameters())})


def _rollout(group_id: int, prompt: Sequence[int], answer: Any, number: int) -> Any:
    from tenth.base.records import Rollout

    earned = reward(answer.ids)
    return Rollout(
        problem_id=str(group_id),
        task="odd",
        level=0,
        group_id=group_id,
        prompt_ids=tuple(prompt),
        answer_ids=answer.ids,
        answer_logprobs=answer.logprobs,
        rewards={"odd": earned},
        reward=earned,
        finish=answer.finish,
        policy_step=number,
        prompt="",
        text="",
    )


def peer(channel: Channel, *, precision: str, cache: str, is_compiled: bool) -> None:
    """TRL: GRPOTrainer with a callback that stops between steps and waits for the parent."""
    import transformers
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    if precision == "fp32-medium":
        torch.set_float32_matmul_precision("medium")
    words, model = _words(), _model(transformers, precision)
    generation: dict[str, Any] = {"min_new_tokens": NEW_TOKENS}
    if (
        cache == "paged"
    ):  # continuous batching takes no minimum; an end that no id has forces the length as well
        generation = {"eos_token_id": -1}
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=precision == "bf16-autocast",
            gradient_checkpointing=False,
            per_device_train_batch_size=PROMPTS * SAMPLES,
            gradient_accumulation_steps=1,
            num_generations=SAMPLES,
            max_completion_length=NEW_TOKENS,
            beta=0.0,
            loss_type="grpo",
            learning_rate=LEARNING_RATE,
            optim="adamw_torch_fused",
            max_grad_norm=1.0,
            max_steps=100_000,
            save_strategy="no",
            report_to="none",
            logging_steps=100_000,
            disable_tqdm=True,
            torch_compile=is_compiled,
            generation_kwargs=generation,
            cache_implementation="static" if cache == "static" else None,
            use_transformers_continuous_batching=cache == "paged",
            shuffle_dataset=False,
        )
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=_peer_reward,
            args=config,
            processing_class=words,
            train_dataset=Dataset.from_list([{"prompt": words.decode(ids)} for ids in prompts()]),
            callbacks=[
                _pacer(transformers, channel, {"parameters": sum(p.numel() for p in model.parameters())})
            ],
        )
        trainer.train()


def _peer_reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    assert all(len(ids) == NEW_TOKENS for ids in completion_ids), "an answer ended early"
    return [reward(ids) for ids in completion_ids]


def _words() -> Any:
    """A tokenizer of one word per id."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"w{i}": i for i in range(preset(SHAPE).vocab_size)}
    model = Tokenizer(WordLevel(vocabulary, unk_token="w0"))
    model.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=model, pad_token="w0", bos_token="w1", eos_token="w2")


def _model(transformers: Any, precision: str) -> Any:
    from tenth.model.hf_config import to_hf

    torch.manual_seed(0)
    values = {k: v for k, v in to_hf(preset(SHAPE)).items() if k != "tenth"}
    config = transformers.AutoConfig.for_model(
        **values | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    )
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)


def _pacer(transformers: Any, channel: Channel, facts: dict[str, Any]) -> Any:
    """A callback: after each step, report when enough are done and sleep until more are asked for."""

    class Pacer(transformers.TrainerCallback):
        def __init__(self) -> None:
            self.left, self.seconds, self.start, self.is_first = 0, [], 0.0, True

        def _wait(self, control: Any) -> None:
            count = channel.next_count()
            self.left, self.seconds = count or 0, []
            control.should_training_stop = count is None
            self.start = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            now = time.perf_counter()
            if self.is_first:  # the step that proves the setting works
                self.is_first = False
                channel.send(facts)
                return self._wait(control)
            self.seconds.append(now - self.start)
            self.start, self.left = now, self.left - 1
            if self.left == 0:
                channel.send(self.seconds)
                self._wait(control)
            return None

    return Pacer()
