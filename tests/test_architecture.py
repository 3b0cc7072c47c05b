"""The walls: who may import whom, which file is the door of which library, and how long a file may be.

python tests/test_architecture.py        prints the table that ARCHITECTURE.md holds
"""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tenth"
MAX_LINES = 400

# One line per room: what it may import besides itself. The one place where this is written.
ALLOWED: dict[str, set[str]] = {
    "base": set(),
    "native": {"base"},
    "endpoint": {"base"},
    "tokenizer": {"base"},
    "sandbox": {"base"},
    "tasks": {"base", "sandbox"},
    "model": {"base", "native"},
    "data": {"base", "tokenizer"},
    "checkpoint": {"base", "tokenizer", "model"},
    "engine": {"base", "native", "model"},
    "llm": {"base", "tokenizer", "model", "checkpoint", "engine"},
    "training": {"base", "model", "data", "checkpoint"},
    "rollout": {"base", "tokenizer", "tasks", "engine", "llm"},
    "reports": {"base", "model"},
    "pipeline": {
        "base", "native", "endpoint", "tokenizer", "tasks", "model",
        "data", "checkpoint", "engine", "training", "rollout",
    },
    "cli": {
        "base", "native", "endpoint", "tokenizer", "tasks", "model",
        "data", "checkpoint", "engine", "llm", "training", "rollout", "reports", "pipeline",
    },
}  # fmt: skip

# Library -> the only places that may import it: a room, or one file. Every third-party import must be here.
DOORS: dict[str, tuple[str, ...]] = {
    "torch": (
        *("native/", "model/", "checkpoint/", "engine/", "llm/", "training/", "pipeline/"),
        *("cli/chat.py", "cli/eval_targets.py"),
    ),
    "numpy": (
        *("data/shards.py", "data/pretrain_stream.py", "data/shingles.py", "data/near_duplicates.py"),
        "data/decontamination.py",
        *("checkpoint/gguf_blocks.py", "checkpoint/gguf_writer.py"),
    ),
    "gguf": ("checkpoint/gguf_blocks.py", "checkpoint/gguf_writer.py"),
    "pydantic": (
        *("base/config.py", "pipeline/recipe.py", "pipeline/r1_recipe.py"),
        *("pipeline/tune_recipe.py", "pipeline/eval_recipe.py"),
    ),
    "tokenizers": ("tokenizer/",),
    "jinja2": ("tokenizer/jinja_child.py",),
    "safetensors": ("checkpoint/tensor_file.py",),
    "math_verify": ("tasks/check_math.py",),
    "py3langid": ("tasks/ifeval/language.py",),
    "reasoning_gym": ("tasks/reasoning_gym.py",),
    "pyarrow": ("tasks/problem_files.py", "data/rows.py"),
    "matplotlib": ("reports/figures.py", "reports/growth.py"),
    "tensorboard": ("cli/tensorboard.py",),
    "httpx": ("endpoint/",),
    "typer": ("cli/",),
    "rich": ("cli/",),
}  # fmt: skip

# These answer at once and run in cheap processes: no torch, however far one follows their imports.
TORCH_FREE_ROOMS = ("base", "tokenizer", "sandbox", "tasks", "reports")
TORCH_FREE_FILES = (
    "model/config.py",
    "model/lora_places.py",
    "model/presets.py",
    "model/counts.py",
    "model/hf_config.py",
)


def source_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str | None:
    """The room of a file; None for the package's own __init__.py."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else None


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Every module that a file imports, inside functions and under TYPE_CHECKING too."""
    return frozenset(_imports_in(path.read_text(encoding="utf-8")))


def _imports_in(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield str(node.module)
            if node.module == "tenth":  # `from tenth import x` names a room or the version
                yield from (f"tenth.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (
                str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant)
            )


def rooms_imported(modules: frozenset[str]) -> set[str]:
    return {
        name.split(".")[1] for name in modules if name.startswith("tenth.") and name != "tenth.__version__"
    }


# rooms


def test_every_room_is_in_the_table():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ALLOWED)


def test_imports_point_downward_only():
    graphlib.TopologicalSorter(ALLOWED).prepare()  # raises CycleError


@pytest.mark.parametrize("path", source_files(), ids=name_of)
def test_a_file_imports_only_rooms_that_it_may(path):
    room = room_of(path)
    allowed = ALLOWED[room] | {room} if room else set()
    assert rooms_imported(imports_of(path)) <= allowed


def test_a_forbidden_import_is_found_wherever_it_hides():
    hidden = "def f():\n    from tenth.engine.engine import Engine\n    import torch.nn as nn\n"
    assert set(_imports_in(hidden)) == {"tenth.engine.engine", "torch.nn"}
    assert rooms_imported(frozenset(_imports_in("from tenth import engine"))) == {"engine"}
    assert set(_imports_in("import importlib\nimportlib.import_module('torch')")) == {"importlib", "torch"}


# libraries


@pytest.mark.parametrize("path", source_files(), ids=name_of)
def test_a_library_is_imported_only_at_its_door(path):
    libraries = (
        {name.partition(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names) - {"tenth"}
    )
    assert libraries <= set(DOORS), "a library without a door: add it to DOORS and to pyproject.toml"
    for library in libraries:
        doors = DOORS[library]
        assert any(
            name_of(path) == door or (door.endswith("/") and name_of(path).startswith(door)) for door in doors
        )


def test_every_door_leads_somewhere():
    opened = {(name.partition(".")[0], name_of(path)) for path in source_files() for name in imports_of(path)}
    for library, doors in DOORS.items():
        for door in doors:
            assert any(lib == library and name.startswith(door) for lib, name in opened), (
                f"{library} at {door}"
            )


def test_every_library_is_declared_and_every_declaration_is_used():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["parquet"], *extras["gym"]]
    names = {re.split(r"[\[=<>~! ]", line)[0].replace("-", "_") for line in declared}
    assert names == set(DOORS)


@pytest.mark.parametrize(
    "path", [path for path in source_files() if room_of(path) in TORCH_FREE_ROOMS], ids=name_of
)
def test_a_torch_free_room_never_names_torch(path):
    assert "torch" not in {name.partition(".")[0] for name in imports_of(path)}


def test_the_torch_free_parts_work_where_torch_is_not_installed():
    files = [path for path in source_files() if room_of(path) in TORCH_FREE_ROOMS]
    files += [PACKAGE / name for name in TORCH_FREE_FILES]
    optional = {PACKAGE / "tasks/reasoning_gym.py", PACKAGE / "tasks/problem_files.py"}  # extras
    programs = {path for path in files if '__name__ == "__main__"' in path.read_text(encoding="utf-8")}
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in files
        if path not in optional | programs and path.name != "__init__.py"
    ]
    code = f"import sys; sys.modules['torch'] = None\nfor name in {modules!r}: __import__(name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_no_text_is_ever_evaluated():
    """Checkers parse what a model wrote. `eval` and `exec` appear nowhere but inside the sandbox."""
    calls = [
        (name_of(path), node.func.id)
        for path in source_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert not [
        (path, name) for path, name in calls if name in ("eval", "exec") and path != "sandbox/roles.py"
    ]


# files


def written_files() -> list[Path]:
    folders = ("tenth", "tests", "benchmarks", "examples")
    endings = ("*.py", "*.cpp", "*.h")
    return sorted(path for folder in folders for ending in endings for path in (ROOT / folder).rglob(ending))


def test_no_file_is_longer_than_a_person_reads_at_once():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in written_files()
    }
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_LINES}


@pytest.mark.parametrize("path", [path for path in source_files() if path.name != "__init__.py"], ids=name_of)
def test_a_file_opens_with_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_everything_that_is_not_python_is_in_the_package_that_people_install():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    patterns = tool["setuptools"]["package-data"]["tenth"]
    others = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert not [name for name in others if not any(fnmatch(name, pattern) for pattern in patterns)]


# the table in ARCHITECTURE.md


def layers() -> dict[str, int]:
    """0 for a room that imports nothing, else one more than the highest room that it may import."""
    found: dict[str, int] = {}
    for room in graphlib.TopologicalSorter(ALLOWED).static_order():
        found[room] = 1 + max((found[below] for below in ALLOWED[room]), default=-1)
    return found


def rooms_table() -> str:
    """The table as Markdown, rooms from the ground up."""
    layer = layers()
    rooms = sorted(ALLOWED, key=lambda room: (layer[room], list(ALLOWED).index(room)))
    lines = [f"| room (layer) \\ may import | {' | '.join(rooms)} |", "|---" * (len(rooms) + 1) + "|"]
    for room in rooms:
        cells = ["·" if other == room else "●" if other in ALLOWED[room] else " " for other in rooms]
        lines.append(f"| **{room}** ({layer[room]}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_document_holds_the_table_that_is_enforced():
    document = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- rooms -->\n(.*?)<!-- /rooms -->", document, flags=re.DOTALL)
    assert shown is not None, "the markers <!-- rooms --> and <!-- /rooms -->"
    assert shown[1].strip() == rooms_table(), "print it with: python tests/test_architecture.py"


if __name__ == "__main__":
    sys.stdout.write(rooms_table() + "\n")
