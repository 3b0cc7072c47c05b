"""`tenth tasks`: what a person sees."""

import pytest
from typer.testing import CliRunner

from tenth.base.errors import ConfigError
from tenth.cli.tasks import app
from tenth.tasks.generated import FAMILIES


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_list_names_every_family():
    output = run("list")
    assert all(name in output for name in FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_show_prints_problems_verdicts_and_three_kinds_of_working(name):
    output = run("show", name, "--count", "3")
    assert output.count("'no idea' wrong") == 3
    assert all(f"\n{kind}: " in output for kind in ("clean", "mistake", "corrected"))
    assert "a guess earns" in output


def test_show_takes_a_level_and_a_seed():
    assert run("show", "sort", "--level", "4", "--seed", "1") != run(
        "show", "sort", "--level", "4", "--seed", "2"
    )
    assert "level 4 of 3..12" in run("show", "sort", "--level", "4")


def test_an_unknown_task_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="there is no task 'sorting'; choose one of chain_sum"):
        run("show", "sorting")
