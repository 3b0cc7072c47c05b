"""Asking a suite: what is on disk is not asked again, what failed is, and later answers are other ones."""

import json
import math
from dataclasses import replace

import pytest
import torch

from tenth.base.errors import ConfigError
from tenth.base.records import Finish, Reply, Usage
from tenth.model.config import GqaConfig, ModelConfig
from tenth.model.transformer import Transformer, initialise
from tenth.pipeline.eval_recipe import EvalRecipe
from tenth.pipeline.evaluate_model import Asked, ask_suite, claim_directory, kept_samples
from tenth.pipeline.likelihood import continuation_likelihood, measure_suite
from tenth.pipeline.sample_log import SampleLog
from tenth.tasks.judge import Judge
from tenth.tasks.shape import R1_SHAPE
from tenth.tasks.suites.suite import AnswerKind
from tenth.tasks.task import problem
from tenth.tokenizer.train import train_bpe

PROBLEMS = tuple(problem("sums", f"{number}+{number}?", str(2 * number)) for number in range(1, 5))
ASKED = Asked(name="sums", kind=AnswerKind.NUMBER, problems=PROBLEMS)


class Scripted:
    """Answers with `text` filled with twice the first number; keeps what it was asked."""

    name = "scripted"

    def __init__(self, text="\\boxed{{{}}}", *, fails=(), stops_after=None):
        self.text, self.fails, self.stops_after = text, fails, stops_after
        self.asked, self.params = [], []

    def respond(self, conversations, params):
        if self.stops_after is not None and len(self.params) == self.stops_after:
            raise KeyboardInterrupt
        self.asked += [each[-1].content for each in conversations]
        self.params.append(params)
        return [[self._reply(each[-1].content)] * params.n for each in conversations]

    def _reply(self, question):
        number = int(question.partition("+")[0])
        error = "HTTP 500" if number in self.fails else None
        text = "" if error else self.text.format(2 * number)
        usage = Usage(prompt_tokens=7, completion_tokens=3)
        return Reply(text=text, reasoning="hm", finish=Finish.STOP, usage=usage, seconds=1.0, error=error)


def ask(responder, directory, *, asked=ASKED, **settings):
    recipe = EvalRecipe(**settings)
    with Judge() as judge:
        ask_suite(
            asked,
            responder=responder,
            recipe=recipe,
            directory=directory,
            check=judge.check_many,
            tell=lambda *_: None,
        )
    return kept_samples(asked, recipe, directory=directory)


def test_every_question_is_asked_in_its_words_and_judged(tmp_path):
    responder = Scripted()
    samples = ask(responder, tmp_path, samples=2, max_tokens=9)
    assert [sample.is_correct for sample in samples] == [True] * 8
    assert responder.asked[0].startswith("1+1?\nPlease reason step by step")
    params = responder.params[0]
    assert (params.n, params.temperature, params.top_p, params.max_tokens) == (2, 0.6, 0.95, 9)


def test_what_was_answered_is_not_asked_again(tmp_path):
    first = ask(Scripted(), tmp_path)
    again = Scripted("\\boxed{{0}}")
    assert ask(again, tmp_path) == first
    assert again.asked == []


def test_what_is_whole_is_kept_when_asking_is_interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        ask(Scripted(stops_after=1), tmp_path, batch=2)
    rest = Scripted()
    assert len(ask(rest, tmp_path, batch=2)) == 4
    assert [text[0] for text in rest.asked] == ["3", "4"]


def test_failed_answers_are_shown_and_asked_again(tmp_path):
    failed = ask(Scripted(fails=(2,)), tmp_path)
    assert [sample.error for sample in failed] == [None, "HTTP 500", None, None]
    again = Scripted()
    assert [sample.error for sample in ask(again, tmp_path)] == [None] * 4
    assert [text[0] for text in again.asked] == ["2"]


def test_more_samples_are_added_to_those_there_by_another_seed(tmp_path):
    first, second = Scripted(), Scripted()
    ask(first, tmp_path, samples=1)
    assert len(ask(second, tmp_path, samples=3)) == 12
    assert second.params[0].n == 2
    assert second.params[0].seed != first.params[0].seed
    assert len(ask(Scripted(), tmp_path, samples=1)) == 4  # fewer are the first ones


def test_a_line_cut_by_a_kill_is_taken_away_and_asked_again(tmp_path):
    ask(Scripted(), tmp_path)
    path = tmp_path / "sums.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    rest = Scripted()
    assert len(ask(rest, tmp_path)) == 4
    assert [text[0] for text in rest.asked] == ["4"]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_text_with_half_a_surrogate_pair_can_be_kept(tmp_path):
    ask(Scripted("\ud83d \\boxed{{{}}}"), tmp_path)
    assert len(SampleLog(tmp_path / "sums.jsonl").read()) == 4


def test_a_shape_of_its_own_is_read_from_thinking_and_answer_together(tmp_path):
    seen = []
    asked = Asked(
        name="sums",
        kind=AnswerKind.FAMILY,
        problems=PROBLEMS,
        is_bare=True,
        shape=replace(R1_SHAPE, extract=seen.append),
    )
    responder = Scripted()
    samples = ask(responder, tmp_path, asked=asked)
    assert responder.asked[0] == "1+1?"
    assert seen[0].startswith("<think>")
    assert [sample.extracted for sample in samples] == [None] * 4


def test_greedy_answers_are_asked_for_once_and_without_top_p(tmp_path):
    responder = Scripted()
    ask(responder, tmp_path, temperature=0)
    assert responder.params[0].top_p == 1.0
    with pytest.raises(ValueError, match="same answer each time"):
        EvalRecipe(temperature=0, samples=2)


def test_answers_of_another_model_or_setting_are_refused_by_name(tmp_path):
    claim_directory(tmp_path, model="one", recipe=EvalRecipe())
    claim_directory(tmp_path, model="one", recipe=EvalRecipe(samples=4, limit=3))
    with pytest.raises(ConfigError, match=r"temperature = 0\.6, and now it is 1\.0"):
        claim_directory(tmp_path, model="one", recipe=EvalRecipe(temperature=1.0))
    with pytest.raises(ConfigError, match="model = one, and now it is two"):
        claim_directory(tmp_path, model="two", recipe=EvalRecipe())


# likelihood


@pytest.fixture(scope="module")
def network():
    tokenizer = train_bpe(["the cat sat on the mat and the dog sat on the log"] * 3, vocab_size=280)
    config = ModelConfig(
        name="small",
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_attention_heads=2,
        gqa=GqaConfig(num_key_value_heads=2, head_dim=8),
        initializer_range=0.2,
    )
    return initialise(Transformer(config), generator=torch.Generator().manual_seed(1)), tokenizer


def test_a_likelihood_is_the_sum_of_the_continuations_own_tokens(network):
    model, tokenizer = network
    before, word = "the cat sat on", " the"
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids = bos + tokenizer.encode_plain(before) + tokenizer.encode_plain(word)
    with torch.no_grad():
        logprobs = model.logits(model(torch.tensor([ids])))[0].log_softmax(-1)
    num = len(tokenizer.encode_plain(word))
    expected = sum(float(logprobs[place - 1, ids[place]]) for place in range(len(ids) - num, len(ids)))
    found = continuation_likelihood(model, tokenizer, before, word)
    assert found.logprob == pytest.approx(expected, abs=1e-5)
    assert found.tokens == num


def test_a_long_context_loses_its_beginning_and_not_the_word(network):
    model, tokenizer = network
    found = continuation_likelihood(model, tokenizer, "the cat sat on the mat " * 60, " the")
    assert found.prompt_tokens + found.tokens <= 64
    assert math.isfinite(found.logprob)


def test_the_likeliest_option_is_chosen_and_nothing_is_computed_twice(network, tmp_path):
    model, tokenizer = network
    options = ["the", "log and the dog sat"]
    asked = Asked(
        name="options",
        kind=AnswerKind.OPTIONS,
        problems=(problem("options", "the cat sat on", "A", metadata={"choices": options}),),
    )
    logprobs = [
        continuation_likelihood(model, tokenizer, "the cat sat on", f" {each}").logprob for each in options
    ]
    recipe = EvalRecipe(samples=4)
    measure_suite(asked, network=network, recipe=recipe, directory=tmp_path, tell=lambda *_: None)
    (sample,) = kept_samples(asked, recipe, directory=tmp_path)  # one: likelihoods are not drawn
    assert sample.extracted == "AB"[logprobs.index(max(logprobs))]
    measure_suite(asked, network=(None, None), recipe=recipe, directory=tmp_path, tell=lambda *_: None)
