"""The bar that commands draw while they work: on the standard error, and only where somebody looks.

Why: the standard output is the result, which a script may read.
In:  a label.  Out: a function to call with how much of how much is done.
Not here: training's live view (live.py).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

_STEPS = 1000


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yield `tell(done, total)`."""
    with typer.progressbar(
        length=_STEPS, label=label, show_percent=True, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:
        yield lambda done, total: bar.update(_STEPS * done // max(total, 1) - bar.pos)
