"""The options of every command that may ask an API: its key, its prices, how much, how many, how long.

Why: they mean the same wherever they stand, so they are worded once.
Not here: what they become (eval_targets.py, endpoint/settings.py).
"""

from typing import Annotated, TypeVar

import typer

T = TypeVar("T")

KeyEnv = Annotated[T, typer.Option(help="The environment variable that holds the API's key.")]
Prices = Annotated[
    T, typer.Option(help="Dollars per million tokens: cache hit/cache miss/output, or input/output.")
]
Budget = Annotated[
    float | None, typer.Option(help="Dollars that may be spent; asking stops before more are.")
]
Concurrency = Annotated[int, typer.Option(help="Requests on their way to an API at once.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        help="Seconds until the first byte of an API's answer; then it is asked again. Default: 600."
    ),
]
