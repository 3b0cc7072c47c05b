import io
import itertools
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from tenth.base.config import dump_recipe
from tenth.base.errors import ConfigError, DataError, RunError
from tenth.base.files import write_json
from tenth.base.records import Finish
from tenth.checkpoint.model_dir import save_model
from tenth.cli.chat import (
    Talk,
    advised_sampling,
    model_directory,
    open_talk,
    printable,
    show_answer,
    show_until_interrupt,
)
from tenth.cli.main import commands
from tenth.llm.outputs import Piece
from tenth.model.config import GqaConfig, ModelConfig
from tenth.model.transformer import Transformer, initialise
from tenth.pipeline.recipe import FamilySection, RlSection, ZeroRecipe
from tenth.pipeline.settings import model_config
from tenth.reports.runs import read_run
from tenth.tokenizer.chat import ChatTemplate, Template
from tenth.tokenizer.jinja_template import JinjaTemplate
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.train import train_bpe


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(["User: What is 3+4?\nAssistant:<answer>7</answer>"] * 20, vocab_size=300)


@pytest.fixture
def run_dir(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """A run whose base and R1-Zero are untrained networks."""
    recipe = ZeroRecipe(
        name="talk",
        model="nano-zero",
        families=(FamilySection(name="chain_sum", document_levels=(2, 3), levels=(2, 3)),),
        rl=RlSection(max_completion_length=6),
    )
    path = tmp_path / "talk"
    write_json(path / "run.json", {"format_version": 1, "name": "talk"})
    write_json(path / "recipe.json", dump_recipe(recipe))
    config = model_config(recipe, vocab_size=tokenizer.vocab_size)
    for seed, stage in enumerate(("02-base", "04-zero")):
        model = initialise(Transformer(config), generator=torch.Generator().manual_seed(seed))
        save_model(path / stage / "model", model, tokenizer=tokenizer)
    return path


def console() -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, color_system="standard", width=60, highlight=False
    )


def said(*texts: str, finish: Finish = Finish.STOP, error: str | None = None) -> list[Piece]:
    """Pieces of an answer, each of three tokens."""
    last = len(texts) - 1
    return [
        Piece(
            sample=0,
            text=text,
            ids=(7, 7, 7),
            logprobs=(0.0,) * 3,
            finish=finish if number == last else None,
            error=error if number == last else None,
        )
        for number, text in enumerate(texts)
    ]


def shown(pieces: Sequence[Piece]) -> str:
    on = console()
    show_answer(on, pieces)
    return on.file.getvalue()


def unstyled(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", text)


DIM, BOLD, END = "\x1b[2m", "\x1b[1m", "\x1b[0m"


# what is shown


def test_thinking_is_dimmed_and_the_answer_bold():
    text = shown(said("<think>3+4=7</think> <answer>7</answer>"))
    assert text == f"{DIM}3+4=7{END}\n{BOLD}7{END}\n"


def test_a_thought_that_the_prompt_has_opened_is_dimmed_from_its_first_word():
    on = console()
    show_answer(on, said("3+4=7</think>7"), is_thinking=True)
    assert on.file.getvalue() == f"{DIM}3+4=7{END}\n7\n"


def test_an_answer_without_tags_is_shown_as_it_is():
    assert shown(said(" seven ")) == "seven\n"


def test_text_around_the_answer_is_kept():
    assert shown(said("so <answer>7</answer> it is")) == f"so\n{BOLD}7{END}\nit is\n"


@given(st.lists(st.integers(0, 60), max_size=5))
def test_however_the_answer_is_cut_into_pieces_the_same_is_shown(cuts):
    text = " <think> 3+4 = 7\n\nso\n</think> it is\n<answer>\n7 <8\n</answer> . "
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = said(*(text[i:j] for i, j in itertools.pairwise(places)))
    assert unstyled(shown(pieces)) == "3+4 = 7\n\nso\nit is\n7 <8\n.\n"


def test_words_are_shown_before_the_answer_has_ended():
    on = console()
    seen = []

    def pieces():
        for piece in said("a", " b", " <thi", "s"):
            yield piece
            seen.append(on.file.getvalue())

    show_answer(on, pieces())
    assert seen == ["a", "a b", "a b", "a b <this"]  # "<thi" may be the beginning of a tag


def test_a_cut_off_answer_says_so():
    text = shown(said("<think>3", "+", "4", finish=Finish.LENGTH))
    assert text.endswith("\n\x1b[2;3m(cut off after 9 tokens)\x1b[0m\n")


def test_a_failed_answer_says_why():
    text = shown(said("3", finish=Finish.ERROR, error="the scores are not numbers"))
    assert unstyled(text) == "3\n(failed: the scores are not numbers)\n"


def test_an_empty_answer_shows_nothing():
    assert shown(said("", " ")) == ""


@pytest.mark.parametrize("text", ["[bold red]x[/]", "[/nothing]", "[link=http://a]b[/link]"])
def test_markup_that_the_model_writes_is_shown_and_not_obeyed(text):
    assert shown(said(text)) == text + "\n"


def test_control_characters_that_the_model_writes_do_nothing():
    assert printable("a\x1b[2J\x07\r\x00\x9b\u202eb") == "a[2Jb"
    assert printable("一\t二\n\u00a03 é") == "一\t二\n\u00a03 é"


# Ctrl-C


@pytest.fixture
def _usual_interrupts():
    """As in a foreground program; a background job inherits Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_usual_interrupts")
def test_ctrl_c_stops_the_answer_after_the_step_under_way_and_not_the_program():
    on, closed = console(), []

    def pieces():
        try:
            yield from said("one", finish=None)
            signal.raise_signal(signal.SIGINT)  # while the engine computes
            yield from said(" two", finish=None)
            yield from said(" three")
        finally:
            closed.append(True)

    assert not show_until_interrupt(on, pieces())
    assert unstyled(on.file.getvalue()) == "one two\n(stopped)\n"
    assert closed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("_usual_interrupts")
def test_a_second_ctrl_c_acts_at_once():
    def pieces():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        yield from said("never")

    with pytest.raises(KeyboardInterrupt):
        show_until_interrupt(console(), pieces())


def test_an_answer_left_alone_comes_to_its_end():
    assert show_until_interrupt(console(), (piece for piece in said("one")))


# which model


def test_the_newest_stage_is_the_default_and_either_can_be_asked_for(run_dir):
    run = read_run(run_dir)
    assert model_directory(run, stage=None).parent.name == "04-zero"
    assert model_directory(run, stage="base").parent.name == "02-base"


def test_a_stage_that_is_not_there_is_one_sentence(tmp_path):
    write_json(tmp_path / "r" / "run.json", {"format_version": 1})
    run = read_run(tmp_path / "r")
    with pytest.raises(RunError, match=r"has no trained model yet; continue it with `tenth run"):
        model_directory(run, stage=None)
    with pytest.raises(RunError, match="has no finished stage 'zero'"):
        model_directory(run, stage="zero")
    with pytest.raises(ConfigError, match="--stage sft is not known; choose one of r1, general-sft"):
        model_directory(run, stage="sft")


# the whole command


def test_questions_from_a_pipe_are_answered_one_by_one(run_dir):
    done = CliRunner().invoke(commands, ["chat", str(run_dir)], input="What is 3+4?\n\n[red]\n")
    assert done.exit_code == 0, done.output
    # an untrained model babbles to its limit both times
    assert done.output.count("(cut off after 6 tokens)") == 2


def test_the_same_questions_get_the_same_answers(run_dir):
    answers = [
        CliRunner().invoke(commands, ["chat", str(run_dir), "--temperature", "1"], input="a\nb\n").output
        for _ in range(2)
    ]
    assert answers[0] == answers[1]


CHATML = (
    "{% for each in messages %}{{ '<' + each.role + '>' + each.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>{% endif %}"
)


@pytest.fixture
def model_dir(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """Somebody's model, with a template of its own and its own advice on sampling."""
    config = ModelConfig(
        name="babbler",
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        gqa=GqaConfig(num_key_value_heads=1, head_dim=8),
        max_position_embeddings=64,
    )
    model = initialise(Transformer(config), generator=torch.Generator().manual_seed(0))
    save_model(tmp_path / "babbler", model, tokenizer=tokenizer, template=JinjaTemplate(text=CHATML))
    return tmp_path / "babbler"


def test_anybodys_model_answers_as_its_template_and_its_advice_say(model_dir):
    write_json(model_dir / "generation_config.json", {"temperature": 0.3, "top_p": 0.8})
    _, talk = open_talk(str(model_dir), stage=None, temperature=None)
    assert (talk.temperature, talk.top_p) == (0.3, 0.8)
    assert open_talk(str(model_dir), stage=None, temperature=0.0)[1].temperature == 0
    prompt = talk._prompt("hi")
    assert talk.llm.tokenizer.decode(prompt) == "<user>hi<assistant><think>"
    done = CliRunner().invoke(commands, ["chat", str(model_dir), "--temperature", "1"], input="hi\nho\n")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    "advice", [{}, {"temperature": 0, "top_p": 0}, {"temperature": "hot", "top_p": None}]
)
def test_without_usable_advice_answers_are_sampled_as_those_of_r1(tmp_path, advice):
    write_json(tmp_path / "generation_config.json", advice)
    assert advised_sampling(tmp_path) == (0.6, 0.95)


def test_a_run_that_trained_somebodys_model_is_talked_to_by_name(model_dir, tmp_path):
    run = tmp_path / "tuned"
    write_json(run / "run.json", {"format_version": 1, "name": "tuned"})
    write_json(run / "recipe.json", {})
    model_dir.rename(run / "model")
    directory, talk = open_talk(str(run), stage=None, temperature=None)
    assert directory == run / "model"
    assert isinstance(talk.template, JinjaTemplate)


def test_a_model_has_no_stages(model_dir):
    done = CliRunner().invoke(commands, ["chat", str(model_dir), "--stage", "base"], input="hi\n")
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith("--stage base goes with a run")


def test_a_template_that_refuses_is_one_sentence(model_dir):
    (model_dir / "chat_template.jinja").write_text("{{ raise_exception('not today') }}")
    done = CliRunner().invoke(commands, ["chat", str(model_dir)], input="hi\n")
    assert isinstance(done.exception, DataError)
    assert "refuses this conversation (not today)" in str(done.exception)


def test_a_question_longer_than_the_context_is_one_sentence(run_dir):
    done = CliRunner().invoke(commands, ["chat", str(run_dir)], input="7" * 3000 + "\n")
    assert isinstance(done.exception, ConfigError)
    assert "ask a shorter one" in str(done.exception)


def test_a_run_that_does_not_exist_is_one_sentence():
    done = CliRunner().invoke(commands, ["chat", "nowhere"], input="")
    assert isinstance(done.exception, RunError)


# conversations


class ScriptedLLM:
    """Notes its prompts and says the same every time."""

    def __init__(self, tokenizer: Tokenizer, ids: Sequence[int]) -> None:
        self.tokenizer, self.ids, self.prompts, self.seeds = tokenizer, tuple(ids), [], set()
        self.context_tokens = 100

    def stream(self, prompt, params, adapter=None):
        self.prompts.append(tuple(prompt))
        self.seeds.add(params.seed)
        self.stop_ids = params.stop_ids
        for number, token in enumerate(self.ids):
            is_last = number == len(self.ids) - 1
            yield Piece(
                sample=0, text="7", ids=(token,), logprobs=(0.0,), finish=Finish.STOP if is_last else None
            )


def talk_of(tokenizer: Tokenizer, template: ChatTemplate) -> tuple[Talk, ScriptedLLM]:
    llm = ScriptedLLM(tokenizer, [*tokenizer.encode("7"), tokenizer.eos_id])
    return Talk(llm, template=template, temperature=0.6, max_new_tokens=10), llm


def test_r1_zero_hears_every_question_for_itself(tokenizer):
    talk, llm = talk_of(tokenizer, Template.ZERO_SHORT)
    list(talk.ask("a"))
    list(talk.ask("a"))
    assert llm.prompts[0] == llm.prompts[1]
    assert len(llm.seeds) == 2  # but draws anew


def test_a_chat_template_keeps_every_id_of_the_conversation_while_it_fits(tokenizer):
    talk, llm = talk_of(tokenizer, Template.DEEPSEEK)
    for _ in range(40):
        list(talk.ask("a"))
    lengths = [len(prompt) for prompt in llm.prompts]
    assert llm.prompts[1][: lengths[0] + 2] == (*llm.prompts[0], *llm.ids)
    assert max(lengths) <= 90
    assert lengths.count(lengths[0]) > 1  # begun again when it did not fit
    assert any(later < earlier for earlier, later in itertools.pairwise(lengths))


def test_a_foreign_template_carries_the_conversation_on(tokenizer):
    talk, llm = talk_of(tokenizer, JinjaTemplate(text=CHATML))
    for question in "ab":
        list(talk.ask(question))
        assert talk.is_thinking
    first, second = llm.prompts
    assert second[: len(first) + 2] == (*first, *llm.ids)
    assert tokenizer.decode(second[len(first) + 2 :]) == "<user>b<assistant><think>"


def test_a_model_that_begins_another_document_has_ended_its_answer(tokenizer):
    talk, llm = talk_of(tokenizer, Template.PLAIN)
    list(talk.ask("Once"))
    assert llm.stop_ids == (tokenizer.bos_id,)


def test_an_answer_that_was_stopped_stays_in_the_conversation_as_far_as_it_came(tokenizer):
    talk, llm = talk_of(tokenizer, Template.DEEPSEEK)
    answer = talk.ask("a")
    next(answer)
    answer.close()
    list(talk.ask("b"))
    begun = (*llm.prompts[0], llm.ids[0], tokenizer.eos_id)
    assert llm.prompts[1][: len(begun)] == begun
