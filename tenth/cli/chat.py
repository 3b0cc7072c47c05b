"""`tenth chat RUN|PATH`: talk to what a run trained, or to anybody's model; thinking is dimmed, answers bold.

Why: scores say how often, a conversation says how. It works with a person at a terminal and with questions
from a pipe, one per line.
In:  a run with a trained model, or a checkpoint of any format that is known: then conversations are written
as its chat template says, and a base model without one continues a text.
Out: text on the console, token by token. Whatever the model writes is shown as text: markup and control
characters do nothing. Ctrl-C stops an answer; at the prompt, it ends.
Not here: sampling (engine/), text from tokens (llm/), templates (tokenizer/chat.py).
"""

import re
import signal
import sys
import threading
import unicodedata
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from tenth.base.errors import ConfigError, DataError, RunError
from tenth.base.records import Finish, Message, Role
from tenth.base.seeds import stream_seed
from tenth.reports.runs import BASE, ZERO, Run, find_run, read_run

if TYPE_CHECKING:  # torch and the tokenizer's library: not for `--help`
    from tenth.llm.llm import LLM
    from tenth.llm.outputs import Piece
    from tenth.tokenizer.chat import ChatTemplate

RUNS_DIR = Path("runs")
TEMPERATURE, TOP_P = 0.6, 0.95  # how R1 is sampled (arXiv:2501.12948, section 3)
_SMALL_PARAMETERS = 1e9  # up to here a model is computed in float32
# Stages whose model can be talked to; the first of them that a run has comes unasked.
TALKERS = ("r1", "general-sft", "reasoning-rl", "cold-start", ZERO, BASE, "student", "student-control")
_IN_TAGS = (ZERO, BASE, "student-control")  # asked in R1-Zero's frame
_HINT = "Ask a question; Ctrl-C stops an answer, an empty line or Ctrl-D ends."
_STYLES = {"<think>": "dim", "</think>": "", "<answer>": "bold", "</answer>": ""}  # of what follows a tag
_TAG = re.compile("|".join(_STYLES))


def chat(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN",
            help="A run directory, its name under runs/, or a model: a directory or a file.",
        ),
    ],
    stage: Annotated[
        str | None, typer.Option(help="Of a run: r1, zero, base, ...; default: the best.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0.0, help="0: always the likeliest token; default: as the model says, or 0.6."),
    ] = None,
) -> None:
    """Talk to a model in the terminal; questions may also come from a pipe, one per line."""
    directory, talk = open_talk(model, stage=stage, temperature=temperature)
    console = Console(highlight=False)
    is_person = sys.stdin.isatty()
    if is_person:
        console.print(Text(f"{directory}. {_HINT}", style="dim"))
    try:
        for question in _questions(console, is_person=is_person):
            try:
                pieces = talk.ask(question)
            except (ConfigError, DataError) as error:  # too long; or refused by the template
                if not is_person:
                    raise
                console.print(Text(str(error), style="red"))
                continue
            is_whole = show_until_interrupt(console, pieces, is_thinking=talk.is_thinking)
            if not is_whole and not is_person:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        console.print()
        raise typer.Exit(130) from None


class Talk:
    """A conversation under way; changes with every question."""

    def __init__(
        self,
        llm: "LLM",
        *,
        template: "ChatTemplate",
        temperature: float,
        top_p: float = TOP_P,
        max_new_tokens: int,
        adapter: str | None = None,
    ) -> None:
        self.llm, self.template, self.adapter = llm, template, adapter
        self.temperature, self.top_p, self.max_new_tokens = temperature, top_p, max_new_tokens
        self.turn = 0
        self.is_thinking = False  # whether the last prompt has begun a thought for the model
        self._so_far: tuple[Sequence[int], Sequence[int]] | None = None  # ids of the last prompt and answer

    def ask(self, question: str) -> "Generator[Piece, None, None]":
        """Put a question; the answer as it is written. Closing it early ends the answer there."""
        from tenth.engine.request import SamplingParams

        prompt = self._prompt(question)
        room = self.llm.context_tokens - len(prompt)
        if room < 1:
            raise ConfigError(
                f"the question has {len(prompt)} tokens and the model's context is {len(prompt) + room}; ask "
                "a shorter one."
            )
        bos_id = self.llm.tokenizer.bos_id
        params = SamplingParams(
            max_new_tokens=min(self.max_new_tokens, room),
            temperature=self.temperature,
            top_p=self.top_p if self.temperature else 1.0,
            seed=stream_seed(0, "chat", self.turn),
            stop_ids=() if bos_id is None else (bos_id,),  # whoever begins another document has ended this
        )
        self.is_thinking = self.llm.tokenizer.decode(prompt[-4:]).rstrip().endswith("<think>")
        return self._remembering(prompt, self.llm.stream(prompt, params, adapter=self.adapter))

    def _remembering(
        self, prompt: list[int], pieces: "Generator[Piece, None, None]"
    ) -> "Generator[Piece, None, None]":
        answer: list[int] = []
        self._so_far = (prompt, answer)
        self.turn += 1
        try:
            for piece in pieces:
                answer += piece.ids
                yield piece
        finally:
            pieces.close()

    def _prompt(self, question: str) -> list[int]:
        from tenth.tokenizer.chat import Template, extend, render_prompt

        # These have only ever seen one question at a time; a chat template carries the conversation on.
        one_turn = (Template.ZERO, Template.ZERO_SHORT, Template.PLAIN)
        if self._so_far is not None and self.template not in one_turn:
            longer = extend(self.llm.tokenizer, *self._so_far, question, template=self.template)
            if len(longer) + self.max_new_tokens <= self.llm.context_tokens:
                return longer
        messages = [Message(role=Role.USER, content=question)]
        return render_prompt(self.llm.tokenizer, messages, template=self.template)


def model_directory(run: Run, *, stage: str | None) -> Path:
    """The newest stage's model, or the one that was asked for."""
    if stage not in (None, *TALKERS):
        raise ConfigError(f"--stage {stage} is not known; choose one of {', '.join(TALKERS)}.")
    wanted = [stage] if stage else TALKERS
    found = [each.path / "model" for name in wanted if (each := run.stage(name))]
    for directory in found:
        if directory.is_dir():
            return directory
    which = f"no finished stage '{stage}'" if stage else "no trained model yet"
    raise RunError(f"{run.path} has {which}; continue it with `tenth run {run.path}`.")


class AnswerView:
    """Shows an answer while it comes: thinking dimmed, the answer bold, each on lines of its own."""

    def __init__(self, console: Console, *, is_thinking: bool = False) -> None:
        self._console = console
        self._style, self._tail, self._blank = _STYLES["<think>"] if is_thinking else "", "", ""
        self._has_shown = self._is_in_part = False

    def feed(self, text: str) -> None:
        """The next characters. What may be the beginning of a tag waits."""
        text = self._tail + printable(text)
        end = _certain(text)
        text, self._tail = text[:end], text[end:]
        place = 0
        for tag in _TAG.finditer(text):
            self._show(text[place : tag.start()])
            self._style, self._blank, self._is_in_part = _STYLES[tag[0]], "", False
            place = tag.end()
        self._show(text[place:])

    def end(self) -> None:
        """The rest, and the cursor at the beginning of a line."""
        self._show(self._tail)
        if self._has_shown:
            self._console.print()

    def _show(self, text: str) -> None:
        """A part's own text without the blanks around it."""
        text = self._blank + text
        if not self._is_in_part:
            text = text.lstrip()
        shown = text.rstrip()
        self._blank = text[len(shown) :]
        if not shown:
            return
        if self._has_shown and not self._is_in_part:
            self._console.print()
        # A line's length is the terminal's business: nobody knows here in which column this begins.
        self._console.print(Text(shown, style=self._style), end="", soft_wrap=True)
        self._has_shown = self._is_in_part = True


def show_answer(console: Console, pieces: "Iterable[Piece]", *, is_thinking: bool = False) -> None:
    """All of an answer, and why it ended if not by itself."""
    view = AnswerView(console, is_thinking=is_thinking)
    tokens, finish, error = 0, Finish.ABORTED, None
    for piece in pieces:
        view.feed(piece.text)
        tokens += len(piece.ids)
        finish, error = piece.finish or finish, piece.error
    view.end()
    notes = {
        Finish.LENGTH: f"(cut off after {tokens} tokens)",
        Finish.ABORTED: "(stopped)",
        Finish.ERROR: f"(failed: {error})",
    }
    if finish in notes:
        console.print(Text(notes[finish], style="dim italic"))


def show_until_interrupt(
    console: Console, pieces: "Generator[Piece, None, None]", *, is_thinking: bool = False
) -> bool:
    """`show_answer` until Ctrl-C; whether the answer came to its end."""
    with _noted_interrupt() as interrupt:
        show_answer(console, _until(interrupt, pieces), is_thinking=is_thinking)
    return not interrupt.is_set()


def _until(interrupt: threading.Event, pieces: "Generator[Piece, None, None]") -> "Iterator[Piece]":
    try:
        for piece in pieces:
            yield piece
            if interrupt.is_set():
                return
    finally:
        pieces.close()


@contextmanager
def _noted_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C is noted, so that it falls between two steps of the engine; a second one acts at once."""
    interrupt = threading.Event()

    def note(signum: int, frame: object) -> None:
        del signum, frame
        interrupt.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note) or signal.SIG_DFL
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def _certain(text: str) -> int:
    """How many characters cannot belong to a tag that has not come whole yet."""
    start = text.rfind("<")
    rest = text[start:]
    is_open = start >= 0 and any(tag.startswith(rest) and tag != rest for tag in _STYLES)
    return start if is_open else len(text)


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


def open_talk(model: str, *, stage: str | None, temperature: float | None) -> tuple[Path, Talk]:
    """What was named, and a conversation with it."""
    is_run = any((path / "run.json").exists() for path in (Path(model), RUNS_DIR / model))
    if not is_run and Path(model).exists():
        if stage is not None:
            raise ConfigError(f"--stage {stage} goes with a run, and {model} is a model; leave it out.")
        return Path(model), _talk_to_checkpoint(Path(model), temperature=temperature)
    try:
        found = find_run(model, root=RUNS_DIR)
    except RunError as error:
        raise RunError(f"no model is at {model}, and {error}") from error
    run = read_run(found)
    if stage is None and (run.path / "model").is_dir():  # somebody's model, trained further
        return run.path / "model", _talk_to_checkpoint(run.path / "model", temperature=temperature)
    directory = model_directory(run, stage=stage)
    return directory, _talk_to_stage(run, directory, temperature=temperature)


def _talk_to_checkpoint(path: Path, *, temperature: float | None) -> Talk:
    from tenth.native.process import tune_process

    tune_process()  # before the first tensor
    import torch

    from tenth.checkpoint.model_dir import load_config
    from tenth.checkpoint.opened import adapter_base
    from tenth.llm.llm import LLM
    from tenth.model.counts import count

    base, adapters = adapter_base(path), {}
    if base is not None and Path(base).exists():  # else the sentence about `path` says what to do
        path, adapters = Path(base), {"chat": path}
    is_small = count(load_config(path)).total_parameters <= _SMALL_PARAMETERS
    llm = LLM(path, dtype=torch.float32 if is_small else torch.bfloat16, adapters=adapters)
    advised, top_p = advised_sampling(path)
    return Talk(
        llm,
        template=llm.requests.template,
        temperature=advised if temperature is None else temperature,
        top_p=top_p,
        max_new_tokens=llm.context_tokens // 2,  # leaves as much for what was said before
        adapter=next(iter(adapters), None),
    )


def advised_sampling(path: Path) -> tuple[float, float]:
    """Temperature and top_p that a model's directory advises, or else R1's."""
    from tenth.tokenizer.pretrained import read_object

    values = read_object(path / "generation_config.json") if path.is_dir() else {}
    temperature, top_p = values.get("temperature"), values.get("top_p")
    return (
        float(temperature) if isinstance(temperature, int | float) and 0 < temperature <= 2 else TEMPERATURE,
        float(top_p) if isinstance(top_p, int | float) and 0 < top_p <= 1 else TOP_P,
    )


def _talk_to_stage(run: Run, directory: Path, *, temperature: float | None) -> Talk:
    from tenth.native.process import tune_process

    tune_process()  # before the first tensor
    import torch

    from tenth.llm.llm import LLM
    from tenth.pipeline.recipes import read_recipe
    from tenth.tokenizer.chat import Template

    recipe = read_recipe(run.path)
    is_in_tags = directory.parent.name.partition("-")[2] in _IN_TAGS
    return Talk(
        LLM(directory, dtype=torch.float32),
        template=recipe.template if is_in_tags else Template.DEEPSEEK,
        temperature=TEMPERATURE if temperature is None else temperature,
        max_new_tokens=recipe.rl.max_completion_length,
    )
