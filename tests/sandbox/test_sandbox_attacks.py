"""Every attack is contained and scored wrong, in both tiers; some are shown to work elsewhere."""

import os
import subprocess
import sys

import pytest

from tenth.base.records import Problem
from tenth.sandbox.limits import FunctionTests, Outcome, Program, Status
from tenth.tasks.check_code import CodeChecker, same_output
from tests.sandbox.attacks_on_the_machine import ATTACKS
from tests.sandbox.attacks_on_the_verdict import FUNCTIONS, PROGRAMS
from tests.sandbox.conftest import ATTACKED, processes_of

TESTS = ("assert solve(20) == 41", "assert solve(-3) == -5", "assert abs(solve(7) - 15) < 1e-6")
PAYS_ONLY_IF_IT_WORKS = "\nif attack(): print(2 * int(input()) + 1)\n"


def named(table):
    return [
        pytest.param(source, id=f"{kind}: {name}")
        for kind, row in table.items()
        for name, source in row.items()
    ]


def is_scored_right(outcome: Outcome) -> bool:
    return outcome.status is Status.OK and same_output("41", outcome.stdout)


def test_there_are_at_least_twelve_classes_of_three_attacks():
    classes = {**ATTACKS, **FUNCTIONS, **PROGRAMS, "time bomb": TIME_BOMBS}
    assert len(classes) >= 12
    assert not [kind for kind, row in classes.items() if len(row) < 3]


@pytest.mark.parametrize("attack", named(ATTACKS))
def test_an_attack_on_the_machine_is_contained_and_scored_wrong(attack, sandbox, victim):
    source = victim.aim(attack) + PAYS_ONLY_IF_IT_WORKS
    outcome = sandbox.run_program(Program(source=source, stdin="20\n", limits=ATTACKED))
    assert not is_scored_right(outcome), outcome
    assert "do-not-tell" not in outcome.stdout + outcome.stderr
    victim.assert_unharmed()
    assert len(processes_of(sandbox)) == 1, "the zygote alone"
    assert honest_program_passes(sandbox)


@pytest.mark.parametrize("program", named(PROGRAMS))
def test_a_program_that_is_not_right_is_scored_wrong_whatever_it_prints(program, sandbox):
    outcome = sandbox.run_program(Program(source=program, stdin="20\n", limits=ATTACKED))
    assert not is_scored_right(outcome), outcome
    assert len(outcome.stdout) <= ATTACKED.output_bytes
    assert len(processes_of(sandbox)) == 1, "the zygote alone"


@pytest.mark.parametrize("candidate", named(FUNCTIONS))
def test_a_candidate_cannot_forge_a_verdict(candidate, sandbox):
    results = sandbox.run_tests(FunctionTests(source=candidate, tests=TESTS, limits=ATTACKED))
    assert results.passed == (False, False, False)
    assert len(processes_of(sandbox)) == 1, "the zygote alone"


TIME_BOMBS = {
    "file in the scratch folder": (
        "open('bomb', 'w')",
        "import os\ndef attack(): return os.path.exists('bomb')",
    ),
    "file in a temporary folder": (
        "import tempfile\nprint(tempfile.mkdtemp(prefix='bomb'))",
        "import os\ndef attack(): return any('bomb' in name for name in os.listdir(os.environ['TMPDIR']))",
    ),
    "module": ("import json\njson.bomb = 1", "import json\ndef attack(): return hasattr(json, 'bomb')"),
    "builtin": ("import builtins\nbuiltins.bomb = 1", "def attack(): return bool(bomb)"),
    "environment": (
        "import os\nos.environ['BOMB'] = '1'",
        "import os\ndef attack(): return 'BOMB' in os.environ",
    ),
    "descriptor": ("import os\nos.dup2(1, 60)", "import os\ndef attack(): return os.write(60, b'x')"),
    "text in memory": (
        "x = 'planted-' + 'earlier'",
        "import gc\ndef attack():\n  wanted = '-'.join(('planted', 'earlier'))\n"
        "  return any(wanted in repr(item) for item in gc.get_objects() if isinstance(item, (dict, list)))",
    ),
    "late process": (
        "import os, time\nif os.fork() == 0:\n  os.setsid(); time.sleep(0.1); open('CANARY', 'w').write('x')",
        "import time\ndef attack(): time.sleep(0.3)",
    ),
}


@pytest.mark.parametrize(("first", "second"), TIME_BOMBS.values(), ids=TIME_BOMBS)
def test_nothing_of_one_check_is_left_for_the_next(first, second, sandbox, victim):
    sandbox.run_program(Program(source=victim.aim(first), limits=ATTACKED))
    source = second + PAYS_ONLY_IF_IT_WORKS
    outcome = sandbox.run_program(Program(source=source, stdin="20\n", limits=ATTACKED))
    assert not is_scored_right(outcome), outcome
    victim.assert_unharmed()


@pytest.mark.parametrize("name", ["tcp", "udp", "abstract socket"])
def test_an_attack_on_the_network_works_where_nothing_contains_it(name, victim):
    source = victim.aim(ATTACKS["network"][name]) + PAYS_ONLY_IF_IT_WORKS
    done = subprocess.run([sys.executable, "-c", source], input=b"20\n", capture_output=True, check=False)
    assert done.stdout == b"41\n"


@pytest.mark.parametrize("name", ["absolute", "symbolic link", "append"])
def test_an_attack_on_files_works_where_nothing_contains_it(name, victim, tmp_path):
    source = victim.aim(ATTACKS["paths"][name]) + PAYS_ONLY_IF_IT_WORKS
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, input=b"20\n", capture_output=True, check=False, cwd=tmp_path)
    assert done.stdout == b"41\n"
    assert victim.canary.read_text() != "untouched"


def test_an_attack_pays_through_the_judge_as_little_as_through_the_sandbox(pool):
    problem = Problem(
        problem_id="0", task="code/test", prompt="", answer="", metadata={"code": {"tests": list(TESTS)}}
    )
    attacks = [source for row in FUNCTIONS.values() for source in row.values() if "\0" not in source]
    with CodeChecker(pool=pool, limits=ATTACKED) as checker:
        answers = [f"<think>\n</think>\n```python\n{source}\n```" for source in attacks]
        verdicts = checker.check_many([problem] * len(attacks), answers)
    assert not [verdict for verdict in verdicts if verdict.is_correct or verdict.error]


def honest_program_passes(sandbox) -> bool:
    source = "print(2 * int(input()) + 1)"
    return is_scored_right(sandbox.run_program(Program(source=source, stdin="20\n")))


def test_the_parent_is_who_it_was(sandbox):
    before = os.getpid(), os.getcwd(), os.geteuid()
    assert honest_program_passes(sandbox)
    assert (os.getpid(), os.getcwd(), os.geteuid()) == before
