"""The documents are true: what they name exists, what they show runs, what they count is right."""

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from test_architecture import DOORS
from typer.core import TyperGroup

from tenth.cli.main import commands

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
] + sorted((ROOT / "docs").glob("*.md"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FOLDERS = ("tenth", "tests", "docs", "examples", "recipes", "benchmarks")
PATH = re.compile(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*[\w-]")
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


def text_of(document: Path) -> str:
    """A document without what its HTML comments hide."""
    return re.sub(r"<!--.*?-->", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text_of(document), flags=re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_is_named_exists(document):
    named = {match.partition("::")[0] for match in PATH.findall(text_of(document))}
    assert not [path for path in sorted(named) if not (ROOT / path).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_inside_the_repository_leads_somewhere(document):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text_of(document))
    inside = [target for target in targets if "://" not in target]
    assert not [target for target in inside if not (document.parent / target).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_is_named_exists(document):
    named = TEST.findall(text_of(document))
    missing = [
        f"{file}::{name}"
        for file, name in named
        if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert not missing


def test_paper_to_code_has_seventy_seven_rows_in_order_and_counts_them_right():
    document = (ROOT / "docs" / "paper-to-code.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (\d+) \| [^|]+ \| (built|partly|absent) \| ([^|]+) \|$", document, flags=re.MULTILINE
    )
    assert [int(number) for number, _, _ in rows] == list(range(1, 78))
    found = {kind: sum(kind == each for _, each, _ in rows) for kind in ("built", "partly", "absent")}
    said = re.search(r"^Built: (\d+)\. Partly: (\d+)\. Absent: (\d+)\.$", document, flags=re.MULTILINE)
    assert said is not None
    assert list(map(int, said.groups())) == [found["built"], found["partly"], found["absent"]]


def test_what_is_called_built_names_its_file_and_its_test():
    document = (ROOT / "docs" / "paper-to-code.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| built \| ([^|]+) \|$", document, flags=re.MULTILINE)
    assert rows
    assert not [number for number, where in rows if "tenth/" not in where or "tests/" not in where]


def test_the_readme_fits_on_a_few_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200


def command_lines(document: Path) -> list[list[str]]:
    """Every `tenth ...` and `make ...` of a document: in shell blocks, and in backticks."""
    text = text_of(document)
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
    lines += re.findall(r"`((?:tenth|make) [^`]+)`", text)
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def explain_unknown(words: list[str], command: Any) -> str | None:
    """What of a command line the command line interface does not know; None if it knows all of it."""
    for word in words[1:]:
        if isinstance(command, TyperGroup) and not word.startswith("-"):
            if word not in command.commands:
                return f"{' '.join(words)}: no command '{word}'"
            command = command.commands[word]
        elif word.startswith("--") and word != "--help":
            options = [option for parameter in command.params for option in parameter.opts]
            if word.partition("=")[0] not in options:
                return f"{' '.join(words)}: no option '{word}'"
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_named_exists(document):
    known = typer.main.get_command(commands)
    asked = [words for words in command_lines(document) if words[0] == "tenth"]
    assert not [trouble for words in asked if (trouble := explain_unknown(words, known))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_that_is_named_exists(document):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    asked = {words[1] for words in command_lines(document) if words[0] == "make"}
    assert asked <= set(re.findall(r"^([\w-]+):", makefile, flags=re.MULTILINE))


def test_a_command_that_does_not_exist_would_be_noticed():
    known = typer.main.get_command(commands)
    assert explain_unknown(["tenth", "rnu", "x.toml"], known) == "tenth rnu x.toml: no command 'rnu'"
    assert (
        explain_unknown(["tenth", "inspect", "x", "--jsn"], known)
        == "tenth inspect x --jsn: no option '--jsn'"
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_code_that_is_shown_runs(document):
    names: dict[str, object] = {}
    for block in blocks(document, "python run"):
        exec(compile(block, str(document), "exec"), names)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(example, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out


def test_the_architecture_names_every_door():
    document = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w-]+)(?: \(extra\))? \| ([^|]+) \|", document, flags=re.MULTILINE))
    for library, doors in DOORS.items():
        named = rows[library if library in rows else library.replace("_", "-")]
        assert all(f"`tenth/{door.rstrip('/')}`" in named for door in doors), library


def test_the_tour_visits_every_room():
    rooms = {path.parent.name for path in (ROOT / "tenth").glob("*/__init__.py")}
    tour = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    assert not [room for room in sorted(rooms) if f"tenth/{room}" not in tour]


def test_the_readmes_map_shows_every_room():
    rooms = {path.parent.name for path in (ROOT / "tenth").glob("*/__init__.py")}
    shown = set(
        re.findall(r"^\| \[(\w+)\]\(tenth/\1\) \|", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    )
    assert shown == rooms
