"""The code in docs/add-a-task.md runs as it stands."""

import re
from pathlib import Path

from tenth.tasks.task import Work

DOC = Path(__file__).parents[2] / "docs" / "add-a-task.md"


def test_the_family_of_the_guide_works(capsys):
    blocks = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(DOC), "exec"), names)
    printed = capsys.readouterr().out
    assert all(f"{kind} WorkedSolution(" in printed for kind in Work)
