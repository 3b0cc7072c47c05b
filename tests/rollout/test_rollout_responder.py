import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "llm"))

from scripted_engine import CONTEXT, TOKENIZER, ScriptedEngine, requests_over

from tenth.base.records import AskParams, Finish, Message, Role
from tenth.llm.llm import LLM
from tenth.rollout.responder import LocalResponder, as_one_text
from tenth.tokenizer.chat import Template
from tenth.tokenizer.jinja_template import JinjaTemplate

OPENED = JinjaTemplate(  # as R1's distillations have it
    text="{{ messages[0].content }}{{ '<think>\n' if add_generation_prompt }}"
)


def responder_saying(answers, *, template=Template.PLAIN) -> tuple[LocalResponder, ScriptedEngine]:
    engine = ScriptedEngine(answers)
    return LocalResponder(LLM.over(requests_over(engine)), template=template), engine


def user(text: str) -> list[Message]:
    return [Message(role=Role.USER, content=text)]


def test_each_conversation_gets_its_n_replies_in_order():
    responder, _ = responder_saying({"long": ["one two three", "four"], "short": ["five", "six"]})
    replies = responder.respond([user("long"), user("short")], AskParams(n=2, max_tokens=50))
    assert [[reply.text for reply in each] for each in replies] == [
        ["one two three", "four"],
        ["five", "six"],
    ]


def test_a_reply_counts_its_tokens_and_tells_thinking_from_answer():
    responder, _ = responder_saying({"q": "<think>hello</think>42"})
    ((reply,),) = responder.respond([user("q")], AskParams(max_tokens=50))
    assert (reply.reasoning, reply.text, reply.finish, reply.error) == ("hello", "42", Finish.STOP, None)
    thought, said = len(TOKENIZER.encode("hello")), len(TOKENIZER.encode("42"))
    assert reply.usage.reasoning_tokens == thought
    assert reply.usage.completion_tokens == 1 + thought + 1 + said + 1  # both tags and the end
    assert 0 <= reply.usage.cached_tokens <= reply.usage.prompt_tokens
    assert as_one_text(reply) == "<think>hello</think>42"


def test_a_thought_that_the_template_opened_and_the_length_cut_off_is_no_answer():
    responder, _ = responder_saying({"q": "hello"}, template=OPENED)
    ((cut,),) = responder.respond([user("hi")], AskParams(max_tokens=3))  # babbles
    assert (cut.text, cut.finish) == ("", Finish.LENGTH)
    assert cut.reasoning is not None
    assert cut.reasoning.endswith("aaa")


def test_without_a_limit_an_answer_may_fill_what_the_model_reads():
    responder, engine = responder_saying({"q": "hello"})
    responder.respond([user("q")], AskParams())
    (request,) = engine.requests
    assert CONTEXT - 64 <= request.params.max_new_tokens <= CONTEXT - len(request.prompt_ids)


def test_a_conversation_that_is_too_long_is_an_error_of_its_own():
    responder, _ = responder_saying({"q": "hello"})
    (long,), (fine,) = responder.respond([user("a " * CONTEXT), user("q")], AskParams(max_tokens=50))
    assert "reads 200 at most" in (long.error or "")
    assert fine.text == "hello"


def test_parameters_reach_the_engine():
    responder, engine = responder_saying({"q": "hello 42 world"})
    params = AskParams(max_tokens=50, temperature=0.3, top_p=0.7, seed=5, stop=("42",))
    ((reply,),) = responder.respond([user("q")], params)
    drawn = engine.requests[0].params
    assert (drawn.max_new_tokens, drawn.temperature, drawn.top_p, drawn.seed) == (50, 0.3, 0.7, 5)
    assert reply.text == "hello "
