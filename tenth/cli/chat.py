"""`tenth chat RUN`: talk to what a run trained; its thinking is shown dimmed, its answer bold.

Why: scores say how often, a conversation says how. It works with a person at a terminal and with questions
from a pipe, one per line.
In:  a run with a trained model (stages `base` and `zero`).
Out: text on the console. Whatever the model writes is shown as text: markup and control characters do
nothing.
Not here: sampling (engine/), templates (tokenizer/chat.py).
"""

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from tenth.base.errors import ConfigError, RunError
from tenth.base.records import Finish, Message, Role
from tenth.base.seeds import stream_seed
from tenth.reports.runs import BASE, ZERO, Run, find_run, read_run

if TYPE_CHECKING:  # torch and the tokenizer's library: not for `--help`
    from tenth.engine.engine import Engine
    from tenth.tokenizer.chat import Template
    from tenth.tokenizer.tokenizer import Tokenizer

RUNS_DIR = Path("runs")
_TOP_P = 0.95  # how R1 is sampled (arXiv:2501.12948, section 3)
_HINT = "Ask a question; an empty line or Ctrl-D ends."


def chat(
    run: Annotated[str, typer.Argument(help="A run directory, or its name under runs/.")],
    stage: Annotated[str | None, typer.Option(help="zero or base; default: the newest.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the likeliest token.")] = 0.6,
) -> None:
    """Talk to a run's model in the terminal; questions may also come from a pipe, one per line."""
    described = read_run(find_run(run, root=RUNS_DIR))
    directory = model_directory(described, stage=stage)
    talk = _load(described, directory, temperature=temperature)
    console = Console(highlight=False)
    is_person = sys.stdin.isatty()
    if is_person:
        console.print(Text(f"{directory}. {_HINT}", style="dim"))
    try:
        for question in _questions(console, is_person=is_person):
            try:
                reply = talk.ask(question)
            except ConfigError as error:  # a question too long for the context
                if not is_person:
                    raise
                console.print(Text(str(error), style="red"))
                continue
            show_reply(console, reply)
    except KeyboardInterrupt:
        console.print()
        raise typer.Exit(130) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model said, and whether it was cut off."""

    text: str
    tokens: int
    finish: Finish


class Talk:
    """A conversation under way; changes with every question."""

    def __init__(
        self,
        engine: "Engine",
        tokenizer: "Tokenizer",
        *,
        template: "Template",
        temperature: float,
        max_new_tokens: int,
    ) -> None:
        self.engine, self.tokenizer, self.template = engine, tokenizer, template
        self.temperature, self.max_new_tokens = temperature, max_new_tokens
        self.turn = 0
        self._so_far: tuple[Sequence[int], Sequence[int]] | None = None  # ids of the last prompt and answer

    def ask(self, question: str) -> Reply:
        """Put a question and sample the answer."""
        from tenth.engine.request import SamplingParams

        prompt = self._prompt(question)
        room = self.engine.model.config.max_position_embeddings - len(prompt)
        if room < 1:
            raise ConfigError(
                f"the question has {len(prompt)} tokens and the model's context is {len(prompt) + room}; ask "
                "a shorter one."
            )
        params = SamplingParams(
            max_new_tokens=min(self.max_new_tokens, room),
            temperature=self.temperature,
            top_p=_TOP_P if self.temperature else 1.0,
            stop_ids=(self.tokenizer.eos_id,),
            seed=stream_seed(0, "chat", self.turn),
        )
        generation = self.engine.generate([prompt], params)[0][0]
        self.turn += 1
        self._so_far = (prompt, generation.ids)
        text = self.tokenizer.decode(generation.ids)
        return Reply(text=text, tokens=len(generation.ids), finish=generation.finish)

    def _prompt(self, question: str) -> list[int]:
        from tenth.tokenizer.chat import Template, extend, render_prompt

        # R1-Zero has only ever seen one question at a time; a chat template carries the conversation on.
        if self._so_far is not None and self.template is Template.DEEPSEEK:
            longer = extend(self.tokenizer, *self._so_far, question, template=self.template)
            if len(longer) + self.max_new_tokens <= self.engine.model.config.max_position_embeddings:
                return longer
        messages = [Message(role=Role.USER, content=question)]
        return render_prompt(self.tokenizer, messages, template=self.template)


def model_directory(run: Run, *, stage: str | None) -> Path:
    """The newest stage's model, or the one that was asked for."""
    if stage not in (None, ZERO, BASE):
        raise ConfigError(f"--stage {stage} is not known; choose {ZERO} or {BASE}.")
    wanted = [stage] if stage else [ZERO, BASE]
    found = [each.path / "model" for name in wanted if (each := run.stage(name))]
    for directory in found:
        if directory.is_dir():
            return directory
    which = f"no finished stage '{stage}'" if stage else "no trained model yet"
    raise RunError(f"{run.path} has {which}; continue it with `tenth run {run.path}`.")


def show_reply(console: Console, reply: Reply) -> None:
    """Thinking dimmed, answer bold, the rest as it is."""
    from tenth.tokenizer.chat import split_thinking

    parts = split_thinking(printable(reply.text))
    if parts.thinking is not None:
        console.print(Text(parts.thinking.strip(), style="dim"))
    before, opened, rest = parts.answer.partition("<answer>")
    answer, _, after = rest.partition("</answer>")
    for text, style in ((before, ""), (answer if opened else "", "bold"), (after, "")):
        if text.strip():
            console.print(Text(text.strip(), style=style))
    if reply.finish is Finish.LENGTH:
        console.print(Text(f"(cut off after {reply.tokens} tokens)", style="dim italic"))


def printable(text: str) -> str:
    """The text without control characters: a model must not move the cursor or rename the window."""
    return "".join(
        char for char in text if char in "\n\t" or char.isprintable() or unicodedata.category(char) == "Zs"
    )


def _questions(console: Console, *, is_person: bool) -> Iterator[str]:
    if not is_person:
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    while True:
        try:
            question = console.input("\n[bold]>[/bold] ").strip()
        except EOFError:
            return
        if not question:
            return
        yield question


def _load(run: Run, directory: Path, *, temperature: float) -> Talk:
    from tenth.native.process import tune_process

    tune_process()  # before the first tensor
    import torch

    from tenth.base.config import build_recipe
    from tenth.checkpoint.model_dir import load_model
    from tenth.engine.engine import Engine
    from tenth.pipeline.recipe import ZeroRecipe
    from tenth.tokenizer.tokenizer import Tokenizer

    recipe = build_recipe(ZeroRecipe, dict(run.recipe), source=str(run.path / "recipe.json"))
    return Talk(
        Engine(load_model(directory, dtype=torch.float32)),
        Tokenizer.load(directory),
        template=recipe.template,
        temperature=temperature,
        max_new_tokens=recipe.rl.max_completion_length,
    )
