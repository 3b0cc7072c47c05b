"""Chat templates of somebody who means harm: a text or a sentence, soon, and the next one is rendered."""

import random
import re
from pathlib import Path

import pytest

from tenth.base.deadline import Worker
from tenth.base.errors import DataError, VerifierError
from tenth.tokenizer import jinja_template
from tenth.tokenizer.jinja_template import Conversation, JinjaTemplate

TURNS = (("system", "s"), ("user", "u"), ("assistant", "<think>t</think>a"), ("user", "v"))
ASKED = {
    "messages": [{"role": role, "content": content} for role, content in TURNS],
    "add_generation_prompt": True,
}
SOUND = sorted((Path(__file__).parents[1] / "tokenizer" / "templates").glob("*.jinja"))

OFFERED = re.compile(r"<class '[\w.]+\.(_Namespace|Cycler|Joiner)'>")  # what Jinja's own helpers look like

# Each tries to show a class, a module's names, a frame or a file.
INTERNALS = [
    "{{ ''['__class__'] }}",
    "{{ '' | attr('__class__') }}",
    "{{ '' | attr('_' ~ '_class_' ~ '_') }}",
    "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ ''.__cla\u017fs__ }}",  # a long s, which Python takes for an s in names
    "{{ ''.\uff3f\uff3fclass\uff3f\uff3f }}",  # wide underscores, likewise
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{x.__class__}'.format_map({'x': ''}) }}",
    "{{ '{0[__class__]}'.format('') }}",
    "{% set f = '{0.__class__}'.format %}{{ f('') }}",
    "{{ ['{0.__class__}'] | map('format', '') | list }}",
    "{{ '%s' | format(raise_exception.__globals__) }}",
    "{{ (messages | map('upper')).gi_frame.f_globals }}",
    "{{ (messages | map('upper')).gi_code.co_consts }}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{% macro m() %}{{ caller.__init__.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% macro m() %}{{ varargs.__class__ }}{{ kwargs.__class__ }}{% endmacro %}{{ m(1) }}",
    "{% for m in messages %}{{ loop.__init__.__globals__ }}{{ loop._iterator }}{% endfor %}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.environment.loader }}",
    "{{ joiner.__init__.__globals__ }}{{ cycler.reset.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace(**{'__class__': 1}) }}",
    "{{ namespace(**{'_Namespace__attrs': 1}) }}",
    "{{ dict.__class__ }}{{ dict.mro() }}",
    "{{ strftime_now.__wrapped__ }}{{ strftime_now.__code__.co_consts }}",
    "{{ messages | groupby('__class__') }}",
    "{{ messages | sort(attribute='__class__.__name__') }}",
    "{{ messages | map('attr', '__class__') | map('attr', '__mro__') | list }}",
    "{{ messages | sum(attribute='__class__') }}",
    "{{ messages.__getitem__.__self__.__class__ }}",
    "{{ messages | selectattr('__class__.__mro__') | list }}",
    "{{ messages | xmlattr }}{{ {'a b': 1} | xmlattr }}",
    "{{ undefined_name.__class__ }}{{ missing.__init__.__globals__ }}",
    "{% include ['/etc/passwd', '../secret'] ignore missing %}",
    "{% from '/etc/passwd' import root %}",
    "{% import 'os.path' as p %}{{ p.join }}",
    "{% extends messages[0].content %}",
    "{% set messages.__class__ = 1 %}",
    "{% set ns = namespace() %}{% set ns.__init__ = 1 %}{{ ns }}",
    "{% do messages.append(1) %}",
    "{% set _ = messages.pop() %}{% set _ = messages.clear() %}",
    "{% set _ = messages[0].__setitem__('role', 'x') %}",
    "{% trans %}{{ x }}{% endtrans %}{% debug %}",
    "{% autoescape false %}{{ ''.__class__ }}{% endautoescape %}",
]
# Each asks for time or memory without end.
ENDLESS = [
    "{% for a in range(9**5) %}{% for b in range(9**5) %}{% endfor %}{% endfor %}",
    "{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% macro m(n) %}{% for i in range(99) %}{{ m(n + 1) }}{% endfor %}{% endmacro %}{{ m(0) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (10**9, 1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 'a'.ljust(10**11) }}",
    "{{ 'a' | indent(10**9) }}",
    "{{ [1] * 10**10 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{% set n = 9 %}{% for i in range(99) %}{% set n = n ** n %}{{ n }}{% endfor %}",
    "{% set ns = namespace(n=9) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}{{ ns.n }}",
    "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
    "{{ ('a' * 10**6) | wordwrap(1) | list | length }}",
    "{{ range(99999) | batch(1) | list | string | length }}",
    "{{ (range(99999) | list * 999) | tojson | length }}",
    "{{ range(99999) | map('string') | join('x' * 9999) | length }}",
    "{{ strftime_now('%A' * 10**7) | length }}",
    "{{ ('a ' * 10**7) | title | urlize | length }}",
    "{% set n = namespace(l=[]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
    "{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}",
    "{{ [] is sameas([]) }}" + "{{ (" * 3000,
    "{% if true %}" * 3000,
    "{{ " + "-" * 50_000 + "1 }}",
    "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "{{ 1" + " + 1" * 20_000 + " }}",
]


@pytest.fixture(scope="module")
def worker():
    """One child for all of them, and whatever stands in for it, with a short deadline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja_template, "DEADLINE_SECONDS", 0.5)
        template = JinjaTemplate(text="")
        yield template._worker


def assert_harmless(text: str, worker: Worker) -> str | DataError:
    """A text or a sentence; the next template is rendered, in another child if need be."""
    template = JinjaTemplate(text=text)
    object.__setattr__(template, "_worker", worker)
    try:
        (found,) = template.render([Conversation(turns=TURNS, is_prompt=True)], specials={})
    except DataError as error:
        found = error
    if isinstance(found, DataError):
        assert str(found).isprintable()
        assert len(str(found)) < 500
    assert worker.call("{{ messages | length }}", {}, [ASKED]) == [{"text": "4"}]
    return found


@pytest.mark.parametrize("text", INTERNALS)
def test_nothing_of_python_is_shown(text, worker):
    found = assert_harmless(text, worker)
    if isinstance(found, str):
        for sign in (
            "<class",
            "__globals__",
            "<module",
            "<frame",
            "<code",
            "root:",
            "builtins",
            "environment",
        ):
            assert sign not in found


@pytest.mark.parametrize("text", ENDLESS, ids=lambda text: text[:40])
def test_what_would_not_end_is_ended(text, worker):
    assert_harmless(text, worker)


def mutated(rng: random.Random) -> str:
    """A sound template with pieces of hostile ones in it, or a hostile one with pieces missing."""
    text = (
        rng.choice(SOUND).read_text(encoding="utf-8")
        if rng.random() < 0.5
        else rng.choice(INTERNALS + ENDLESS)
    )
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(text) + 1)
        end = start + rng.choice((0, 1, 3, 30))
        other = rng.choice(INTERNALS)
        cut = rng.randrange(len(other))
        pieces = (
            "",
            text[start:end] * 2,
            other,
            other[cut:],
            chr(rng.randrange(0x250)),
            "{{",
            "%}",
            "__",
            "\0",
        )
        text = text[:start] + rng.choice(pieces) + text[end:]
    return text


def hold_out(numbers: range, worker: Worker) -> int:
    """How often the child had to be replaced."""
    deaths = 0
    for number in numbers:
        text = mutated(random.Random(number))
        try:
            reply = worker.call(text, {}, [ASKED])
        except VerifierError:
            deaths += 1
            continue
        (kind,) = reply if isinstance(reply, dict) else reply[0]
        assert kind in ("text", "error", "refused")
        if kind == "text":
            assert "<class" not in OFFERED.sub("", reply[0]["text"]), number
    assert worker.call("ok", {}, [ASKED]) == [{"text": "ok"}]
    return deaths


def test_mixtures_of_sound_and_hostile_templates_are_rendered_or_refused(worker):
    assert hold_out(range(150), worker) < 15


@pytest.mark.slow
def test_thousands_of_mixtures_are_rendered_or_refused(worker):
    assert hold_out(range(1000, 11_000), worker) < 1000
