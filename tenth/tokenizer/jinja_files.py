"""Chat templates in a model's directory: our own written as Jinja for others, others' read for us.

Why: whoever loads a checkpoint finds there how to talk to it. A template of ours is stored as a Jinja text
that writes the same, and known again when it is read, so that nothing has to be rendered in another process.
In:  a directory.  Out: `chat_template.jinja`; and back, a `ChatTemplate`.
Where a template is looked for: chat_template.jinja, then the key chat_template of tokenizer_config.json,
which may be a list of named ones; the one called "default" counts. Without any, the model continues text.
Not here: rendering (jinja_template.py), templates inside GGUF files (checkpoint/).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenth.base.errors import CheckpointError
from tenth.base.files import write_whole
from tenth.tokenizer.chat import ZERO_FRAME, ChatTemplate, Template
from tenth.tokenizer.jinja_template import MAX_TEMPLATE_CHARS, JinjaTemplate
from tenth.tokenizer.pretrained import CONFIG, read_bounded, read_object

TEMPLATE_FILE = "chat_template.jinja"
_SPECIALS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

_SYSTEM = (
    "{% set system = messages | selectattr('role', 'equalto', 'system') "
    "| map(attribute='content') | join('\\n\\n') %}"
    "{% set has_system = messages | selectattr('role', 'equalto', 'system') | list | length > 0 %}"
)


def _zero(frame: str) -> str:
    shown = frame.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return (
        f"{_SYSTEM}{{{{ bos_token }}}}{{% if has_system %}}{{{{ system + '\\n' }}}}{{% endif %}}"
        f"{{{{ '{shown}' }}}}"
        "{% for message in messages %}"
        "{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] }}"
        "{% elif message['role'] == 'assistant' %}"
        "{{ '\\nAssistant:' + message['content'] + eos_token }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '\\nAssistant:' }}{% endif %}"
    )


_DEEPSEEK = (
    f"{_SYSTEM}{{{{ bos_token }}}}{{{{ system }}}}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{% set content = message['content'] %}"
    "{% if not loop.last and '</think>' in content %}{% set content = content.split('</think>')[-1] %}"
    "{% endif %}{{ '<｜Assistant｜>' + content + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)
_PLAIN = (
    f"{_SYSTEM}{{{{ bos_token }}}}{{% if has_system %}}{{{{ system + '\\n\\n' }}}}{{% endif %}}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
OWN_TEXTS: Mapping[Template, str] = {
    Template.ZERO: _zero(ZERO_FRAME),
    Template.ZERO_SHORT: _zero(""),
    Template.DEEPSEEK: _DEEPSEEK,
    Template.PLAIN: _PLAIN,
}


def save_template(directory: Path, template: ChatTemplate) -> None:
    """Write `chat_template.jinja`."""
    text = template.text if isinstance(template, JinjaTemplate) else OWN_TEXTS[template]
    # A text out of JSON may hold half a character, which no file can.
    write_whole(Path(directory) / TEMPLATE_FILE, text.encode(errors="replace"))


def read_template(directory: Path) -> ChatTemplate:
    """The template of a model's directory; PLAIN where it has none."""
    directory = Path(directory)
    values = read_object(directory / CONFIG)
    text = _text_in(directory, values)
    if text is None:
        return Template.PLAIN
    tokens = read_object(directory / "special_tokens_map.json") | values
    spelled = {key: _spelling(tokens.get(key)) for key in _SPECIALS}
    return template_from(text, specials={key: each for key, each in spelled.items() if each is not None})


def template_from(text: str, *, specials: Mapping[str, str] | None = None) -> ChatTemplate:
    """The template with this text, wherever it was found; `specials` names tokens that it may write."""
    for own, own_text in OWN_TEXTS.items():
        if text.removesuffix("\n") == own_text:  # as Jinja, which drops one
            return own
    return JinjaTemplate(text=text, specials=specials or {})


def _text_in(directory: Path, values: Mapping[str, Any]) -> str | None:
    path = directory / TEMPLATE_FILE
    if path.is_file():
        data = read_bounded(path)
        try:
            return _bounded(data.decode(), source=path)
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path} is not UTF-8 ({error}); restore it.") from error
    source = directory / CONFIG
    found = values.get("chat_template")
    if isinstance(found, list):
        found = _default_of(found, source=source)
    if found is None:
        return None
    if not isinstance(found, str):
        raise CheckpointError(
            f"{source}: chat_template is a {type(found).__name__}, not a text; mend it or take it out."
        )
    return _bounded(found, source=source)


def _default_of(named: list[Any], *, source: Path) -> Any:
    """Of a list of {"name": ..., "template": ...}."""
    templates = {
        each["name"]: each.get("template")
        for each in named
        if isinstance(each, dict) and isinstance(each.get("name"), str)
    }
    if "default" not in templates:
        raise CheckpointError(
            f"{source}: none of its chat templates ({', '.join(sorted(templates))[:100] or 'none named'}) is "
            "called 'default'; rename one."
        )
    return templates["default"]


def _bounded(text: str, *, source: Path) -> str:
    if len(text) > MAX_TEMPLATE_CHARS:
        raise CheckpointError(
            f"{source}: its chat template has {len(text):,} characters and {MAX_TEMPLATE_CHARS:,} are the "
            "most; restore the file that came with the model."
        )
    return text


def _spelling(token: Any) -> str | None:
    """A token is written as its text, or as an object with its text."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
