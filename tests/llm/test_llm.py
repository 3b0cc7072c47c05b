import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_engine import CONTEXT, TOKENIZER, ScriptedEngine, config_for, requests_over

from tenth.base.errors import ConfigError, QueueFull
from tenth.base.records import Finish, Message, Role
from tenth.engine.request import SamplingParams, Update
from tenth.llm.llm import LLM
from tenth.llm.text_requests import TextRequests
from tenth.tokenizer.chat import Template
from tenth.tokenizer.jinja_template import JinjaTemplate
from tenth.tokenizer.special import ASSISTANT, BOS, THINK, USER

TEN = SamplingParams(max_new_tokens=100)


def llm_saying(answers, **settings) -> tuple[LLM, ScriptedEngine]:
    engine = ScriptedEngine(answers, **settings)
    return LLM.over(requests_over(engine)), engine


def first(llm: LLM, prompt: str = "q", params: SamplingParams = TEN, **settings):
    return llm.generate(prompt, params, **settings)[0].samples[0]


# what comes back


def test_every_prompt_gets_one_output_in_order_whatever_ends_first():
    llm, _ = llm_saying({"long": "The answer is 42. hello world", "short": "no"})
    texts = [output.text for output in llm.generate(["long", "short", "long"], TEN)]
    assert texts == ["The answer is 42. hello world", "no", "The answer is 42. hello world"]


def test_the_samples_of_a_prompt_stand_together_in_order():
    llm, _ = llm_saying({"q": ["one two three", "four", "five six"]})
    (output,) = llm.generate("q", SamplingParams(max_new_tokens=100, n=3))
    assert [each.text for each in output.samples] == ["one two three", "four", "five six"]
    assert [each.sample for each in output.samples] == [0, 1, 2]


def test_an_output_tells_ids_logprobs_alternatives_and_where_the_prompt_came_from():
    llm, _ = llm_saying({"q": "hello"})
    (output,) = llm.generate("q", SamplingParams(max_new_tokens=100, top_logprobs=1))
    ids = (*TOKENIZER.encode("hello"), TOKENIZER.eos_id)
    (sample,) = output.samples
    assert sample.ids == ids
    assert sample.logprobs == tuple(-float(token) for token in ids)
    assert sample.top_logprobs == tuple(((token, -float(token)),) for token in ids)
    assert sample.finish is Finish.STOP
    assert output.cached_tokens == 64
    assert output.prompt_tokens == len(output.prompt_ids) == 2  # bos and "q"


def test_no_prompts_are_no_outputs():
    assert llm_saying({})[0].generate([], TEN) == []


# prompts


def test_a_text_is_read_as_the_beginning_of_a_document_once():
    llm, engine = llm_saying({})
    llm.generate(["hello", BOS + "hello"], SamplingParams(max_new_tokens=1))
    expected = (TOKENIZER.bos_id, *TOKENIZER.encode("hello"))
    assert [request.prompt_ids for request in engine.requests] == [expected, expected]


def test_ids_are_taken_as_they_are_one_list_or_many():
    llm, engine = llm_saying({})
    ids = TOKENIZER.encode("hello")
    llm.generate(ids, SamplingParams(max_new_tokens=1))
    llm.generate([ids, ids], SamplingParams(max_new_tokens=1))
    assert [request.prompt_ids for request in engine.requests] == [tuple(ids)] * 3


def test_a_conversation_is_written_in_the_models_template():
    llm, engine = llm_saying({THINK: "hello"})
    messages = [{"role": "system", "content": "be brief"}, Message(role=Role.USER, content="hi</think>")]
    output = llm.chat(messages, TEN, prefill="<think>")
    assert output.text == "hello"
    text = TOKENIZER.decode(engine.requests[0].prompt_ids)
    assert text == f"be brief{USER}hi</think>{ASSISTANT}{THINK}"
    # and the user's tag is characters, not the token that ends a thought
    assert TOKENIZER.id_of("</think>") not in engine.requests[0].prompt_ids


def test_a_conversation_is_written_as_the_model_was_trained_unless_another_way_is_asked_for():
    llm, _ = llm_saying({})
    question = [{"role": "user", "content": "hi"}]
    assert TOKENIZER.decode(llm.render(question)) == f"{USER}hi{ASSISTANT}"
    assert TOKENIZER.decode(llm.render(question, template=Template.ZERO_SHORT)) == "User: hi\nAssistant:"
    foreign = JinjaTemplate(
        text="{{ bos_token }}Q: {{ messages[0].content }}{{ ' A:' if add_generation_prompt }}"
    )
    assert llm.render(question, template=foreign) == TOKENIZER.encode(f"{BOS}Q: hi A:")


def test_a_base_model_continues_a_text():
    engine = ScriptedEngine({"Once": " upon a time"})
    llm = LLM.over(TextRequests(engine, TOKENIZER, config_for(TOKENIZER)))
    assert llm.chat([{"role": "user", "content": "Once"}], TEN).text == " upon a time"


@pytest.mark.parametrize(
    ("prompts", "params", "message"),
    [
        (["fine", "x" * CONTEXT], TEN, "prompt 1 is too long"),
        (["fine", []], TEN, "prompt 1 is empty"),
        ([[1], [99999]], TEN, "holds id 99999"),
        ([[1], 2], TEN, "give a list of texts or of lists of ids"),
        ([1, "text"], TEN, "give a list of texts or of lists of ids"),
    ],
)
def test_a_bad_prompt_is_one_sentence_before_anything_starts(prompts, params, message):
    llm, engine = llm_saying({})
    with pytest.raises(ConfigError, match=message):
        llm.generate(prompts, params)
    assert not engine.requests


def test_a_prompt_that_comes_again_in_one_call_draws_anew():
    llm, engine = llm_saying({})
    for _ in range(2):
        llm.generate(["a", "b", "a"], SamplingParams(max_new_tokens=1, n=2))
    streams = [request.streams for request in engine.requests]
    assert len({stream for group in streams[:3] for stream in group}) == 6
    assert streams[:3] == streams[3:]


# where an answer ends


def test_the_end_token_ends_an_answer_unless_it_is_ignored():
    llm, engine = llm_saying({})
    llm.generate("a", SamplingParams(max_new_tokens=1, stop_ids=(20,)))
    llm.generate("a", SamplingParams(max_new_tokens=1, stop_ids=(20,)), ignore_eos=True)
    assert [request.params.stop_ids for request in engine.requests] == [(20, TOKENIZER.eos_id), (20,)]


def test_a_stop_string_over_several_tokens_cuts_the_text_and_keeps_the_ids():
    llm, engine = llm_saying({"q": "The answer is 42. hello"})
    sample = first(llm, stop=["answer is 4"])
    assert (sample.text, sample.finish, sample.stop) == ("The ", Finish.STOP, "answer is 4")
    assert TOKENIZER.decode(sample.ids) == "The answer is 4"
    assert engine.aborted == [(engine.requests[0].request_id, 0)]


def test_the_stop_string_is_shown_on_request():
    llm, _ = llm_saying({"q": "The answer is 42. hello"})
    assert first(llm, stop=["is 4"], include_stop=True).text == "The answer is 4"


def test_a_stop_string_ends_its_own_sample_only():
    llm, engine = llm_saying({"q": ["one. two", "three four", "five. six"]})
    (output,) = llm.generate("q", SamplingParams(max_new_tokens=100, n=3), stop=["."])
    assert [each.text for each in output.samples] == ["one", "three four", "five"]
    assert [sample for _, sample in engine.aborted] == [0, 2]


@given(st.integers(1, 30))
def test_how_many_tokens_come_at_once_changes_nothing(per_step):
    llm, _ = llm_saying({"q": "The answer is 42. hello world 你好"}, per_step=per_step)
    sample = first(llm, stop=["wor"])
    reference = first(llm_saying({"q": "The answer is 42. hello world 你好"})[0], stop=["wor"])
    assert (sample.text, sample.ids, sample.logprobs) == (reference.text, reference.ids, reference.logprobs)
    assert sample.text == "The answer is 42. hello "


def test_no_stop_string_counts_before_the_least_number_of_tokens():
    llm, _ = llm_saying({"q": "1.2.3.4.5"})
    params = SamplingParams(max_new_tokens=100, min_new_tokens=4)
    assert first(llm, params=params, stop=["."]).text == "1.2.3"


def test_a_stop_id_is_shown_only_on_request():
    llm, _ = llm_saying({"q": "yes</think>no"})
    params = SamplingParams(max_new_tokens=100, stop_ids=(TOKENIZER.id_of("</think>"),))
    assert first(llm, params=params).text == "yes"
    assert first(llm, params=params, include_stop=True).text == "yes</think>"
    assert first(llm, params=params).ids[-1] == TOKENIZER.id_of("</think>")


def test_what_was_held_back_comes_out_when_the_length_ends_an_answer():
    llm, _ = llm_saying({})
    sample = first(llm, params=SamplingParams(max_new_tokens=3), stop=["aaaa"])
    assert (sample.text, sample.finish, sample.stop) == ("aaa", Finish.LENGTH, None)


def test_a_request_that_fails_says_why_and_the_others_go_on():
    llm, engine = llm_saying({"good": "hello"})
    healthy = engine.step

    def step():
        bad = engine.requests[0].request_id
        engine._todo.pop((bad, 0), None)
        failure = Update(
            request_id=bad, sample=0, ids=(), logprobs=(), finish=Finish.ERROR, error="NaN logits"
        )
        return [failure, *healthy()]

    engine.step = step
    bad, good = llm.generate(["bad", "good"], TEN)
    assert (bad.samples[0].finish, bad.samples[0].error, bad.text) == (Finish.ERROR, "NaN logits", "")
    assert good.text == "hello"


# queues, streams, faults


def test_more_prompts_than_the_queue_holds_wait_for_their_turn():
    llm, engine = llm_saying({"q": "hello"}, max_requests=2)
    assert [output.text for output in llm.generate(["q"] * 9, TEN)] == ["hello"] * 9
    assert len(engine.requests) == 9


def test_a_queue_that_takes_nothing_is_an_error_and_not_a_wait_for_ever():
    with pytest.raises(QueueFull):
        llm_saying({}, max_requests=0)[0].generate("q", TEN)


def test_a_stream_brings_text_as_soon_as_it_is_certain():
    llm, engine = llm_saying({"q": "The answer is 42. hello"})
    stream = llm.stream("q", TEN, stop=["is 41"])
    shown = ""
    while not shown.endswith("42"):
        shown += next(stream).text
    assert shown == "The answer is 42"
    assert engine.has_work  # the rest is not written yet
    assert shown + "".join(piece.text for piece in stream) == "The answer is 42. hello"


def test_closing_a_stream_aborts_its_request():
    llm, engine = llm_saying({})
    stream = llm.stream("q", TEN)
    next(stream)
    stream.close()
    assert not engine.has_work
    assert engine.num_steps == 1


def test_streams_may_be_read_in_any_order():
    llm, _ = llm_saying({"a": "The answer is 42", "b": "hello world"})
    one, two = llm.stream("a", TEN), llm.stream("b", TEN)
    begun = next(one).text + next(one).text
    assert "".join(piece.text for piece in two) == "hello world"
    assert begun + "".join(piece.text for piece in one) == "The answer is 42"


def test_a_stream_that_cannot_be_is_refused_when_it_is_asked_for():
    with pytest.raises(ConfigError, match="the prompt is too long"):
        llm_saying({})[0].stream("x" * CONTEXT, TEN)


def test_a_fault_of_the_engine_leaves_nothing_behind():
    llm, engine = llm_saying({})

    def step():
        raise ZeroDivisionError

    engine.step = step
    with pytest.raises(ZeroDivisionError):
        llm.generate(["a", "b"], TEN)
    assert not engine.has_work
    assert not llm.requests.has_work


def test_an_engine_that_loses_a_request_is_found_out():
    llm, engine = llm_saying({})
    engine.add = lambda request: None
    with pytest.raises(RuntimeError, match=r"the engine lost 1 requests, such as 'prompt 0"):
        llm.generate("a", TEN)
