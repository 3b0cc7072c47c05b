"""The child's side of jinja_template.py: compile a foreign chat template and render conversations.

Why a process: a template is a program that came with somebody's weights. Jinja's sandbox keeps it from
Python's internals, but not from looping or from filling memory; so it runs where it can be killed, without a
descriptor to open a file or a socket with, should it ever break out.
In:  the template's text, its variables, conversations.  Out: per conversation its text, or why there is none.
Offered to a template is what chat templates are written for: `raise_exception`, `strftime_now`, `tojson`
without HTML escapes, `break` and `continue`, and the `generation` tag, whose body is rendered.
Not here: what contents may say, ids (jinja_ids.py).
"""

import functools
import html
import json
import pprint
import resource
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
import jinja2.debug
from jinja2.ext import Extension, LoopControlExtension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SPARE_CHARS = 1 << 20  # what a template may add to the texts of a conversation
MAX_COPIES = 4  # how often it may repeat them

# Imported when a template needs them; by then no file can be opened to import them from.
_LATE = (html, jinja2.debug, pprint, textwrap, unicodedata)
_WARM_UP = "{{ 'a\\n' ~ strftime_now('%d %b') | tojson }}"


class RefusedError(jinja2.TemplateError):
    """The template called `raise_exception`."""


def prepare() -> None:
    """Give up files and sockets; what is open stays open.

    Templates are rendered first, also bad ones, for what Python and Jinja set up at the first use.
    """
    for text in (_WARM_UP, "{{ missing.part.part }}", "{% if %}"):
        render(text, {}, [{"messages": [], "add_generation_prompt": True}])
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def render(text: str, variables: Mapping[str, Any], conversations: Sequence[Mapping[str, Any]]) -> Any:
    """[{"text": ...} or {"refused": ...} or {"error": ...}] for every conversation; a dict if none can be."""
    try:
        template = _compiled(text)
    except jinja2.TemplateSyntaxError as error:
        return {"error": f"line {error.lineno}: {error.message}"}
    except Exception as error:  # noqa: BLE001  a template can fail in any way while it is compiled
        return {"error": _described(error)}
    return [_rendered(template, variables, each) for each in conversations]


def _rendered(
    template: jinja2.Template, variables: Mapping[str, Any], conversation: Mapping[str, Any]
) -> dict[str, str]:
    copies = MAX_COPIES * sum(len(message["content"]) for message in conversation["messages"])
    try:
        return {"text": _joined(template.generate({**variables, **conversation}), MAX_SPARE_CHARS + copies)}
    except RefusedError as error:
        return {"refused": str(error.message)}
    except Exception as error:  # noqa: BLE001  whatever it is, it is the template's
        return {"error": _described(error)}


def _joined(pieces: Iterable[str], max_chars: int) -> str:
    kept, num_chars = [], 0
    for piece in pieces:
        num_chars += len(piece)
        if num_chars > max_chars:
            raise ValueError(f"it wrote more than {max_chars:,} characters")
        kept.append(piece)
    return "".join(kept)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


@functools.lru_cache(maxsize=4)
def _compiled(text: str) -> jinja2.Template:
    return _environment().from_string(text)


def _environment() -> ImmutableSandboxedEnvironment:
    # Blocks on lines of their own leave no trace: the rule that chat templates are written for.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, LoopControlExtension]
    )
    environment.filters["tojson"] = _to_json
    del environment.globals["lipsum"]
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "namespace": _Namespace,
        "dict": _dict,  # a function: the type has methods of its own
    }
    return environment


class _GenerationTag(Extension):
    """{% generation %} marks what an assistant said, for others' loss masks; to us it is its body."""

    tags = {"generation"}  # noqa: RUF012  the name and type that Jinja looks for

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(jinja2.utils.Namespace):
    """Names with an underscore in front mean something to Python."""

    def __init__(*args: Any, **values: Any) -> None:
        for name in dict(*args[1:], **values):
            _require_public(name)
        jinja2.utils.Namespace.__init__(*args, **values)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_public(name)
        super().__setitem__(name, value)


def _require_public(name: str) -> None:
    if str(name).startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace holds no '{name}'")


def _dict(*args: Any, **values: Any) -> dict[str, Any]:
    return dict(*args, **values)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(wanted: str) -> str:
    return datetime.now().strftime(wanted)


def _raise_exception(message: str) -> None:
    raise RefusedError(message)
