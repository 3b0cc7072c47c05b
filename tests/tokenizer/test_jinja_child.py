"""Hostile chat templates: one sentence each, and the next call works."""

import random
from pathlib import Path

import pytest

from tenth.base.deadline import Worker
from tenth.base.errors import DataError, VerifierError
from tenth.tokenizer import jinja_template
from tenth.tokenizer.jinja_template import Conversation, JinjaTemplate

HELLO = Conversation(turns=(("user", "hi"),), is_prompt=True)
TEMPLATES = Path(__file__).parent / "templates"
NOISE = ["{{", "}}", "{%", "%}", "|", "[", "]", "'", "\\", "(", ")", "**", "-", "__class__", "\0", "{#"]


def rendered(text, conversation=HELLO, **options):
    (found,) = JinjaTemplate(text=text, options=options).render([conversation], specials={"bos_token": "<s>"})
    if isinstance(found, DataError):
        raise found
    return found


def test_a_template_gets_messages_tokens_options_and_the_usual_helpers():
    assert rendered("{{ bos_token }}{{ messages[0].role }}{{ mood }}", mood="good") == "<s>usergood"
    assert rendered("{{ {'a': '<é>'} | tojson }}") == '{"a": "<é>"}'
    assert rendered("{{ [1] | tojson(indent=1) }}") == "[\n 1\n]"
    assert rendered("{% for i in range(9) %}{% if i > 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "012"
    assert rendered("{% generation %}said{% endgeneration %}.") == "said."
    assert rendered("{% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}") == "2"
    assert rendered("{{ dict(a=1).items() | list }}{{ tools is none }}") == "[('a', 1)]True"
    assert (
        rendered("{% set é = [1] %}{{ é | pprint }}{{ '<b>x' | striptags }}{{ 'a b' | wordwrap(1) }}")
        == "[1]xa\nb"
    )
    assert len(rendered("{{ strftime_now('%Y-%m-%d') }}")) == 10
    assert rendered("  {% if true %}\n    x\n  {% endif %}\n") == "    x\n"


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self._TemplateReference__context.environment }}x{{ messages.__len__.__self__ }}",
        "{{ raise_exception.__globals__['functools'] }}",
        "{{ messages | map(attribute='__class__') | map(attribute='__mro__') | list }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
        "{{ namespace(__call__=raise_exception)() }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 3 %}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ ().__class__.__bases__[0].__subclasses__()[0]('x') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends '/etc/passwd' %}",
    ],
)
def test_internals_and_files_are_out_of_reach(text):
    with pytest.raises(
        DataError, match=r"^the chat template (failed|is no valid Jinja) \(.*pass another one\.$"
    ):
        rendered(text)


def test_an_attribute_that_is_not_shown_is_nothing():
    assert rendered("{{ messages | map(attribute='__class__') | list }}").count("class 'dict'") == 0


def test_whatever_broke_out_of_the_sandbox_could_open_nothing():
    prepare = "tenth.tokenizer.jinja_child:prepare"
    for function, argument in (("os:listdir", "/"), ("io:open_code", __file__), ("socket:socketpair", 1)):
        with (
            Worker(function, deadline_seconds=20, prepare=prepare) as worker,
            pytest.raises(VerifierError, match="Too many open files"),
        ):
            worker.call(argument)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ 'a' * 10**10 }}", "MemoryError"),
        (
            "{% set x = namespace(s='a') %}{% for i in range(60) %}{% set x.s = x.s + x.s %}{% endfor %}",
            "MemoryError",
        ),
        ("{% for i in range(99999) %}{{ 'a' * 99 }}{% endfor %}", "it wrote more than 1,048,584 characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ range(10**9) | list }}", "OverflowError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages[7].content }}", "UndefinedError"),
        ("{% if %}", "line 1: Expected an expression"),
        ("a\n{% endfor %}", "line 2: "),
        ("{{ 'x' | no_such_filter }}", "No filter named 'no_such_filter'"),
        ("(" * 50 + "{{ " + "(" * 5000, "chat template"),
        (
            "{{ raise_exception('no\n\x1b[2J\tway.') }}",
            r"refuses this conversation \(no \[2J way\); change its",
        ),
        ("{{ raise_exception('x' * 999) }}", r"x{200}\.\.\.\)"),
    ],
)
def test_what_is_wrong_is_one_sentence(text, message):
    with pytest.raises(DataError, match=message) as caught:
        rendered(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_template_that_does_not_end_is_killed_and_the_next_conversation_is_rendered(monkeypatch):
    monkeypatch.setattr(jinja_template, "DEADLINE_SECONDS", 0.5)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    template = JinjaTemplate(text="{% if messages[0].content == 'hang' %}" + loop + "{% endif %}ok")
    hang = Conversation(turns=(("user", "hang"),), is_prompt=True)
    with pytest.raises(DataError, match=r"within 0\.5 s and 512 MiB \(it ran past its deadline of 0\.5 s\)"):
        template.render([hang], specials={})
    assert template.render([HELLO], specials={}) == ["ok"]


def test_a_template_that_takes_for_ever_to_compile_is_killed(monkeypatch):
    monkeypatch.setattr(jinja_template, "DEADLINE_SECONDS", 0.5)
    with pytest.raises(DataError, match=r"\(it ran past its deadline of 0\.5 s\)"):
        rendered("{{ 10 ** (10 ** 10) }}")


def test_a_text_is_rendered_once():
    template = JinjaTemplate(text="{{ messages[0].content }}")
    (first,) = template.render([HELLO], specials={})
    template._worker.call = None  # nobody is asked again
    assert template.render([HELLO], specials={}) == [first] == ["hi"]


def test_long_conversations_go_in_several_calls():
    template = JinjaTemplate(text="{{ messages[0].content }}")
    texts = [str(number) + "x" * 300_000 for number in range(9)]
    asked = [Conversation(turns=(("user", text),), is_prompt=True) for text in texts]
    assert template.render(asked, specials={}) == texts


def test_a_template_that_is_no_text_or_too_long_is_refused():
    with pytest.raises(DataError, match="a chat template is a text, not a list"):
        JinjaTemplate(text=["x"])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has 1,048,577 characters and 1,048,576 are the most"):
        JinjaTemplate(text="x" * (1 + (1 << 20)))


def test_damaged_templates_render_or_say_why():
    """A fuzz over mutations: pieces cut out, doubled, noise, bytes changed. One child lives through it."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.glob("*.jinja"))]
    turns = [("system", "s"), ("user", "u"), ("assistant", "<think>t</think>a"), ("user", "v")]
    messages = [{"role": role, "content": content} for role, content in turns]
    randoms = random.Random(0)
    found = set()
    template = JinjaTemplate(text="")
    worker = template._worker
    worker.call("", {}, [])
    child = worker._child
    for _ in range(400):
        text = randoms.choice(texts)
        for _ in range(randoms.randint(1, 2)):
            text = damaged(text, randoms)
        reply = worker.call(text, {}, [{"messages": messages, "add_generation_prompt": True}])
        found |= set(reply if isinstance(reply, dict) else reply[0])
    assert {"text", "error"} <= found <= {"text", "error", "refused"}
    assert worker._child is child


def damaged(text, randoms):
    start, end = sorted(randoms.randrange(len(text) + 1) for _ in range(2))
    end = min(end, start + randoms.choice([1, 2, 40]))
    pieces = ["", text[start:end] * 2, randoms.choice(NOISE), chr(randoms.randrange(256))]
    return text[:start] + randoms.choice(pieces) + text[end:]
