"""What `tenth eval` can measure: a model on disk, a run's final model, a model behind an API.

Why: all of them answer in text, so behind this file nobody asks which it is.
In:  a path, a run or an address as typed.  Out: a `Target`; opened, a `Responder`.
Everything that can be wrong with a target is said before the first question is asked.
Not here: asking (pipeline/evaluate_model.py), tables (eval_table.py).
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tenth.base.errors import ConfigError, RunError
from tenth.base.files import sample_hash
from tenth.reports.runs import BASE, ZERO, Run, find_run, read_run

if TYPE_CHECKING:
    import torch

    from tenth.endpoint.settings import EndpointSettings, Limits, Prices
    from tenth.model.transformer import Transformer
    from tenth.pipeline.recipe import ZeroRecipe
    from tenth.rollout.responder import Responder
    from tenth.tokenizer.chat import ChatTemplate
    from tenth.tokenizer.tokenizer import Tokenizer

RUNS_DIR = Path("runs")
_SMALL_PARAMETERS = 1e9  # up to here a model is computed in float32
_IN_TAGS = (BASE, ZERO, "student-control")  # the stages whose models answer in R1-Zero's shape
_FINAL = ("r1", ZERO)  # stages whose model is a run's result, the last first


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One column of what is set side by side."""

    name: str  # as the table calls it
    model_dir: Path | None = None
    run: Run | None = None
    endpoint: "EndpointSettings | None" = None

    @property
    def identity(self) -> str:
        """Whether it is still the same model: its weights by their bytes, an endpoint by its address."""
        if self.endpoint is not None:
            return f"{self.endpoint.model} at {self.endpoint.place}"
        path = self.model_dir or Path()
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        return " ".join(sample_hash(each) for each in files)

    @property
    def is_zero(self) -> bool:
        """Whether it answers in R1-Zero's shape: a run's base, R1-Zero and the controls."""
        stages = self.run.stages if self.run else ()
        own = next((stage.name for stage in stages if stage.path / "model" == self.model_dir), "")
        return own in _IN_TAGS or own.startswith("control-")

    @property
    def recipe(self) -> "ZeroRecipe | None":
        """Of a run."""
        from tenth.pipeline.recipes import read_recipe

        is_story = self.run is not None and "families" in self.run.recipe  # else of somebody's own data
        return read_recipe(self.run.path) if self.run and is_story else None

    @property
    def max_tokens(self) -> int | None:
        """How long a run's model was ever allowed to answer; None: as long as it can."""
        from tenth.pipeline.r1_recipe import R1Recipe

        recipe = self.recipe
        if isinstance(recipe, R1Recipe) and not self.is_zero:
            return recipe.all_rl.max_completion_length
        return recipe.rl.max_completion_length if recipe else None


def read_targets(
    texts: Sequence[str],
    *,
    models: Sequence[str],
    key_variables: Sequence[str],
    prices: Sequence[str],
    budget_usd: float | None,
    concurrency: int,
    timeout_seconds: float | None = None,
) -> list[Target]:
    """Every target; the options of endpoints go to the addresses in their order, or one to all."""
    urls = [text for text in texts if "://" in text]
    given = {"--model": models, "--key-env": key_variables, "--prices": prices}
    for option, values in given.items():
        if len(values) > 1 and len(values) != len(urls):
            raise ConfigError(
                f"{option} is given {len(values)} times for {len(urls)} addresses; give it once for all, or "
                "once for each, in their order."
            )
        if values and not urls:
            raise ConfigError(f"{option} goes with an address such as https://api.deepseek.com/v1; add one.")
    if budget_usd is not None and not (urls and prices):
        raise ConfigError(
            f"--budget {budget_usd:g} is kept by counting what an API's answers cost; name an address like "
            "https://api.deepseek.com/v1, and --prices."
        )
    if budget_usd is not None and not 0 < budget_usd < math.inf:
        raise ConfigError(f"--budget {budget_usd:g} must be a positive number of dollars.")
    if not 1 <= concurrency <= 1024:
        raise ConfigError(f"--concurrency {concurrency} must be from 1 to 1024.")
    if urls and not models:
        raise ConfigError(f"{urls[0]} serves several models; name one with --model, such as deepseek-chat.")
    limits = _limits(timeout_seconds, has_address=bool(urls))
    targets: list[Target] = []
    for text in texts:
        if "://" in text:
            number = sum("://" in each for each in texts[: len(targets)])
            targets.append(
                _endpoint(
                    text,
                    model=_nth(models, number) or "",
                    key_variable=_nth(key_variables, number),
                    prices=_nth(prices, number),
                    budget_usd=budget_usd,
                    concurrency=concurrency,
                    limits=limits,
                )
            )
        else:
            targets.append(_local(text))
    return _with_own_names(targets)


@contextmanager
def opened(target: Target, *, replies_dir: Path) -> "Iterator[Responder]":
    """Load the weights, or connect; what an endpoint has answered is kept in `replies_dir`."""
    if target.endpoint is not None:
        from tenth.endpoint.client import EndpointClient
        from tenth.endpoint.responder import EndpointResponder

        client = EndpointClient(target.endpoint, replies_dir)
        yield EndpointResponder(client, name=target.name)
        return
    from tenth.rollout.responder import LocalResponder

    assert target.model_dir is not None
    from tenth.llm.llm import LLM

    with LLM(target.model_dir, dtype=_dtype(target.model_dir)) as llm:
        yield LocalResponder(llm, name=target.name, template=_template(target))


def load_network(target: Target) -> "tuple[Transformer, Tokenizer]":
    """The network alone, for likelihoods."""
    from tenth.checkpoint.companions import load_tokenizer
    from tenth.checkpoint.model_dir import load_model

    assert target.model_dir is not None
    return load_model(target.model_dir, dtype=_dtype(target.model_dir)), load_tokenizer(target.model_dir)


def _dtype(path: Path) -> "torch.dtype":
    """A small model is computed in float32, a larger one in bfloat16."""
    from tenth.native.process import tune_process

    tune_process()  # before the first tensor
    import torch

    from tenth.checkpoint.model_dir import load_config
    from tenth.model.counts import count

    is_small = count(load_config(path)).total_parameters <= _SMALL_PARAMETERS
    return torch.float32 if is_small else torch.bfloat16


def parse_prices(text: str) -> "Prices":
    """Dollars per million tokens: hit/miss/output, or input/output where nothing is cached.

    >>> parse_prices("0.14/0.55/2.19").output_usd
    2.19
    """
    from tenth.endpoint.settings import Prices

    try:
        values = [float(part) for part in text.split("/")]
    except ValueError:
        values = []
    if len(values) == 2:
        values.insert(0, values[0])
    if len(values) != 3:
        raise ConfigError(
            f"--prices {text} is no price list; write dollars per million tokens as cache hit/cache "
            "miss/output, such as 0.14/0.55/2.19, or as input/output."
        )
    return Prices(hit_usd=values[0], miss_usd=values[1], output_usd=values[2])


def _limits(timeout_seconds: float | None, *, has_address: bool) -> "Limits":
    from tenth.endpoint.settings import Limits

    if timeout_seconds is None:
        return Limits()
    if not has_address:
        raise ConfigError("--timeout goes with an address such as https://api.deepseek.com/v1; add one.")
    if not 0 < timeout_seconds <= Limits().total_seconds:
        raise ConfigError(
            f"--timeout {timeout_seconds:g} must be more than 0 and at most {Limits().total_seconds:g} "
            "seconds: by then a whole answer must have come."
        )
    return Limits(header_seconds=timeout_seconds)


def _nth(values: Sequence[str], number: int) -> str | None:
    if not values:
        return None
    return values[number] if len(values) > 1 else values[0]


def _endpoint(
    text: str,
    *,
    model: str,
    key_variable: str | None,
    prices: str | None,
    budget_usd: float | None,
    concurrency: int,
    limits: "Limits",
) -> Target:
    from tenth.endpoint.settings import EndpointSettings

    settings = EndpointSettings(
        base_url=text,
        model=model,
        key_variable=key_variable,
        prices=parse_prices(prices) if prices else None,
        budget_usd=budget_usd,
        concurrency=concurrency,
        limits=limits,
    )
    settings.key()  # a missing one is said now
    return Target(name=model, endpoint=settings)


def _local(text: str) -> Target:
    path = Path(text)
    is_run = any((each / "run.json").exists() for each in (path, RUNS_DIR / text))
    if path.exists() and not is_run:
        from tenth.checkpoint.model_dir import load_config

        load_config(path)  # says what is wrong with it
        if path.name == "model" and (path.parents[1] / "run.json").exists():
            run = read_run(path.parents[1])
            stage = path.parent.name.partition("-")[2]
            return Target(name=f"{run.name}-{stage}", model_dir=path, run=run)
        name = path.parent.name if path.name == "model" else path.stem if path.is_file() else path.name
        return Target(name=name, model_dir=path)
    try:
        run = read_run(find_run(text, root=RUNS_DIR))
    except RunError as error:
        raise RunError(f"no model is at {text}, and {error}") from error
    return Target(name=run.name, model_dir=final_model(run), run=run)


def refuse_run(path: Path) -> None:
    """A run where a model is meant: its model is named."""
    if (path / "run.json").exists():
        raise RunError(
            f"{path} is a run, and a model is needed; name the run's: {final_model(read_run(path))}"
        )


def final_model(run: Run) -> Path:
    """Of a run of somebody's own, its model; else that of R1, or of R1-Zero."""
    found = [run.path / "model", *(stage.path / "model" for name in _FINAL if (stage := run.stage(name)))]
    model_dir = next((path for path in found if path.is_dir()), None)
    if model_dir is None:
        raise RunError(f"{run.path} has no trained model yet; continue it with `tenth run {run.path}`.")
    return model_dir


def _template(target: Target) -> "ChatTemplate | None":
    """R1-Zero's frame is its recipe's, R1 has role tokens; other models' directories say theirs."""
    from tenth.tokenizer.chat import Template

    recipe = target.recipe
    if recipe is None:
        return None
    return recipe.template if target.is_zero else Template.DEEPSEEK


def _with_own_names(targets: Sequence[Target]) -> list[Target]:
    """Two of one name are told apart by their number; a name is a directory's, too."""
    named, seen = [], dict[str, int]()
    for target in targets:
        name = re.sub(r"[^\w.-]", "-", target.name).strip(".") or "model"
        seen[name] = seen.get(name, 0) + 1
        named.append(replace(target, name=name if seen[name] == 1 else f"{name}-{seen[name]}"))
    return named
