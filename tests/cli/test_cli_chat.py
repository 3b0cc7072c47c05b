import io
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from tenth.base.config import dump_recipe
from tenth.base.errors import ConfigError, RunError
from tenth.base.files import write_json
from tenth.base.records import Finish
from tenth.checkpoint.model_dir import save_model
from tenth.cli.chat import Reply, Talk, model_directory, printable, show_reply
from tenth.cli.main import commands
from tenth.engine.request import Generation
from tenth.model.transformer import Transformer, initialise
from tenth.pipeline.recipe import FamilySection, RlSection, ZeroRecipe
from tenth.pipeline.settings import model_config
from tenth.reports.runs import read_run
from tenth.tokenizer.chat import Template
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
        save_model(path / stage / "model", model, save_tokenizer=tokenizer.save)
    return path


def shown(reply: Reply) -> str:
    console = Console(
        file=io.StringIO(), force_terminal=True, color_system="standard", width=60, highlight=False
    )
    show_reply(console, reply)
    return console.file.getvalue()


def said(text: str, finish: Finish = Finish.STOP) -> Reply:
    return Reply(text=text, tokens=9, finish=finish)


DIM, BOLD, END = "\x1b[2m", "\x1b[1m", "\x1b[0m"


# what is shown


def test_thinking_is_dimmed_and_the_answer_bold():
    text = shown(said("<think>3+4=7</think> <answer>7</answer>"))
    assert text == f"{DIM}3+4=7{END}\n{BOLD}7{END}\n"


def test_an_answer_without_tags_is_shown_as_it_is():
    assert shown(said(" seven ")) == "seven\n"


def test_text_around_the_answer_is_kept():
    assert shown(said("so <answer>7</answer> it is")) == f"so\n{BOLD}7{END}\nit is\n"


def test_a_cut_off_answer_says_so():
    assert shown(said("<think>3+", Finish.LENGTH)).endswith("(cut off after 9 tokens)\x1b[0m\n")


@pytest.mark.parametrize("text", ["[bold red]x[/]", "[/nothing]", "[link=http://a]b[/link]"])
def test_markup_that_the_model_writes_is_shown_and_not_obeyed(text):
    assert shown(said(text)) == text + "\n"


def test_control_characters_that_the_model_writes_do_nothing():
    assert printable("a\x1b[2J\x07\r\x00\x9b\u202eb") == "a[2Jb"
    assert printable("一\t二\n\u00a03 é") == "一\t二\n\u00a03 é"


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
    with pytest.raises(ConfigError, match="--stage sft is not known; choose zero or base"):
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


def test_a_question_longer_than_the_context_is_one_sentence(run_dir):
    done = CliRunner().invoke(commands, ["chat", str(run_dir)], input="7" * 3000 + "\n")
    assert isinstance(done.exception, ConfigError)
    assert "ask a shorter one" in str(done.exception)


def test_a_run_that_does_not_exist_is_one_sentence():
    done = CliRunner().invoke(commands, ["chat", "nowhere"], input="")
    assert isinstance(done.exception, RunError)


# conversations


class Scripted:
    """An engine that notes its prompts and says the same every time."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids, self.prompts = tuple(ids), []
        config = type("Config", (), {"max_position_embeddings": 100})
        self.model = type("Model", (), {"config": config})

    def generate(self, prompts, params):
        self.prompts.append(tuple(prompts[0]))
        self.seeds = {*getattr(self, "seeds", set()), params.seed}
        return [[Generation(ids=self.ids, logprobs=(0.0,) * len(self.ids), finish=Finish.STOP)]]


def talk_of(tokenizer: Tokenizer, template: Template) -> tuple[Talk, Scripted]:
    engine = Scripted([*tokenizer.encode("7"), tokenizer.eos_id])
    talk = Talk(engine, tokenizer, template=template, temperature=0.6, max_new_tokens=10)
    return talk, engine


def test_r1_zero_hears_every_question_for_itself(tokenizer):
    talk, engine = talk_of(tokenizer, Template.ZERO_SHORT)
    talk.ask("a")
    talk.ask("a")
    assert engine.prompts[0] == engine.prompts[1]
    assert len(engine.seeds) == 2  # but draws anew


def test_a_chat_template_keeps_every_id_of_the_conversation_while_it_fits(tokenizer):
    talk, engine = talk_of(tokenizer, Template.DEEPSEEK)
    for _ in range(40):
        talk.ask("a")
    lengths = [len(prompt) for prompt in engine.prompts]
    assert engine.prompts[1][: lengths[0] + 2] == (*engine.prompts[0], *engine.ids)
    assert max(lengths) <= 90
    assert lengths.count(lengths[0]) > 1  # begun again when it did not fit
    assert any(later < earlier for earlier, later in itertools.pairwise(lengths))
