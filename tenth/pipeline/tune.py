"""What `tenth rl` and `tenth sft` share: somebody's model opened, made to learn, saved, described.

Why: both begin with any checkpoint that can be read and end with one that every tool can read; between them
lies a run directory like that of every other run.
In:  the path of a checkpoint, a recipe.  Out: `Base`, a policy that learns, `model/` in the run directory.
Not here: what is trained on and how (tune_rl.py, tune_sft.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tenth.base.config import dump_recipe
from tenth.base.errors import ConfigError, RunError
from tenth.base.files import file_hash, read_json, sample_hash, text_hash, write_json, write_whole
from tenth.base.seeds import stream_seed
from tenth.base.units import show_seconds
from tenth.checkpoint.companions import load_template, load_tokenizer, require_vocabulary
from tenth.checkpoint.model_card import CARD, ModelCard
from tenth.checkpoint.model_dir import (
    has_interleaved_rope,
    load_config,
    load_model,
    load_quantisation,
    save_model,
)
from tenth.checkpoint.peft import load_adapter, save_adapter
from tenth.checkpoint.whole_dir import readable
from tenth.model.config import ModelConfig
from tenth.model.lora import DEFAULT, LoraConfig, attach_lora, default_targets, lora_places
from tenth.model.transformer import Transformer
from tenth.pipeline.machine import Machine
from tenth.pipeline.run_dir import RECIPE, changed_settings, describe_run
from tenth.pipeline.stage import done_number
from tenth.pipeline.tune_recipe import TuneRecipe
from tenth.tokenizer.chat import ChatTemplate
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.training.optim import WeightUpdater

MODEL = "model"
_COMMANDS = {"RlRecipe": "tenth rl", "SftRecipe": "tenth sft", "DistillRecipe": "tenth distill"}
Weights = Mapping[str, Tensor]
# What may differ between two calls of one run: it changes no result, or its content has a hash of its own.
_FREE_KEYS = frozenset(
    {
        *("model", "tasks", "data", "teacher", "prompts", "partial", "reward_timeout_seconds"),
        *("price_usd_per_hour", "checkpoint_every_seconds", "keep_checkpoints", "reward_hashes"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Somebody's model, its weights not yet read."""

    path: Path
    config: ModelConfig
    tokenizer: Tokenizer
    template: ChatTemplate

    @property
    def name(self) -> str:
        """What to call it."""
        return self.path.resolve().name.removesuffix(".gguf").removesuffix(".bin")

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """What ends an answer. A model that begins another document has ended this one."""
        bos = self.tokenizer.bos_id
        return tuple(dict.fromkeys((*self.tokenizer.eos_ids, *(() if bos is None else (bos,)))))

    def fingerprint(self) -> str:
        """Of what the model is, and of its weights by samples of their files: quick for any size."""
        place = readable(self.path)
        files = sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
        described = (repr(self.config), self.tokenizer.fingerprint(), repr(self.template))
        return text_hash(*described, *map(sample_hash, files))


def open_base(path: Path) -> Base:
    """Read everything but the weights."""
    config, tokenizer = load_config(path), load_tokenizer(path)
    require_vocabulary(tokenizer, config, source=path)
    return Base(path=path, config=config, tokenizer=tokenizer, template=load_template(path))


def lora_config(recipe: TuneRecipe, base: Base) -> LoraConfig | None:
    """The adapter that is asked for; a ConfigError where neither it nor the network itself can learn."""
    if recipe.lora_rank is None:
        if readable(base.path).is_dir() and load_quantisation(base.path) is not None:
            raise ConfigError(
                f"{base.path} is quantised, and whole numbers cannot learn; give --lora 16 to train an "
                "adapter beside it, or name the model that it was made from."
            )
        return None
    config = LoraConfig(
        rank=recipe.lora_rank,
        alpha=recipe.lora_alpha or 2.0 * recipe.lora_rank,
        targets=recipe.lora_targets or default_targets(base.config),
    )
    lora_places(base.config, config.targets)
    return config


def load_policy(base: Base, recipe: TuneRecipe, *, dtype: torch.dtype) -> Transformer:
    """The model as it was given, ready to learn: whole, or with a new adapter that does nothing yet."""
    model, lora = load_model(base.path, dtype=dtype), lora_config(recipe, base)
    if lora is None:
        return model
    generator = torch.Generator().manual_seed(stream_seed(recipe.seed, "lora"))
    return attach_lora(model, lora, generator=generator)


def load_to_learn(base: Base, recipe: TuneRecipe, *, dtype: torch.dtype) -> tuple[Transformer, Weights]:
    """The same, and the weights at the precision of their file, for `take_over`."""
    if recipe.lora_rank is not None:
        return load_policy(base, recipe, dtype=dtype), {}
    model = load_policy(base, recipe, dtype=torch.float32)
    exact = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return model.to_compute_dtype(dtype), exact


def take_over(updater: WeightUpdater, exact: Weights) -> None:
    """Let masters begin as the file has them, so that a weight which learns nothing is stored as it was."""
    if exact:
        updater.masters.load_state_dict(exact)


def load_trained(base: Base, recipe: TuneRecipe, run_dir: Path, *, dtype: torch.dtype) -> Transformer:
    """What `save_trained` wrote."""
    if recipe.lora_rank is None:
        return load_model(run_dir / MODEL, dtype=dtype)
    model, is_interleaved = load_model(base.path, dtype=dtype), has_interleaved_rope(base.path)
    return load_adapter(model, run_dir / MODEL, rope_interleaved=is_interleaved)


def adapter_of(recipe: TuneRecipe) -> str | None:
    """What the sampler is told; None: the model itself learns."""
    return None if recipe.lora_rank is None else DEFAULT


def save_trained(run_dir: Path, model: Transformer, base: Base, recipe: TuneRecipe, weights: Weights) -> None:
    """`model/`: a directory that other tools load, or an adapter's directory as PEFT reads it."""
    if recipe.lora_rank is None:
        save_model(run_dir / MODEL, model, tokenizer=base.tokenizer, template=base.template, weights=weights)
    else:
        is_interleaved = has_interleaved_rope(base.path)
        save_adapter(run_dir / MODEL, model, base_model=recipe.model, rope_interleaved=is_interleaved)


def begin_run(
    run_dir: Path,
    recipe: TuneRecipe,
    *,
    hashes: Mapping[str, str],
    reward_files: Mapping[str, Path],
    say: Callable[[str], None],
) -> tuple[Machine, dict[str, Any]]:
    """See that the directory is this run's or nobody's, and write down what it is: machine and settings."""
    settings = dump_recipe(recipe) | {"hashes": dict(hashes), "kind": type(recipe).__name__}
    _refuse_others(run_dir, settings)
    before = read_json(run_dir / RECIPE) if (run_dir / RECIPE).exists() else {}
    known = {name: list(before.get("reward_hashes", {}).get(name, ())) for name in reward_files}
    for name, path in reward_files.items():
        now = file_hash(path)
        if known[name] and known[name][-1] != now:
            say(f"{path} has changed since the run began; from here on it counts as it is now.")
        if not known[name] or known[name][-1] != now:
            known[name].append(now)
    machine = describe_run(
        run_dir, name=run_dir.name, recipe_folder=Path(), price_usd_per_hour=recipe.price_usd_per_hour
    )
    write_json(run_dir / RECIPE, settings | {"reward_hashes": known})
    return machine, {key: value for key, value in settings.items() if key not in _FREE_KEYS}


def _refuse_others(run_dir: Path, settings: Mapping[str, Any]) -> None:
    changed = changed_settings(run_dir, settings, free=_FREE_KEYS)
    if not changed:
        return
    before = read_json(run_dir / RECIPE)
    if "kind" in changed:
        what = _COMMANDS.get(before.get("kind", ""), "another command")
        raise RunError(
            f"{run_dir} holds a run of {what} ({before.get('model', before.get('name'))}, "
            f"{before.get('tasks', before.get('data', 'no file'))}); choose another --out."
        )
    old = before.get("hashes", {})
    files = [name for name, value in settings["hashes"].items() if old.get(name) != value]
    other = [key for key in changed if key != "hashes"]
    listed = ", ".join(_difference(key, before.get(key), settings[key]) for key in (*files, *other))
    raise RunError(
        f"{run_dir} was begun with {listed}; repeat its own settings to continue it, or choose another --out."
    )


def _difference(key: str, before: Any, now: Any) -> str:
    """Where the value is the same, it is a path, and what lies there is not."""
    return f"other contents of {key} = {now!r}" if before == now else f"{key} = {before!r} and not {now!r}"


def stage_named(run_dir: Path, name: str) -> Path:
    """The directory of a stage that has begun, whatever its number."""
    return next(run_dir.glob(f"[0-9][0-9]-{name}"))


def write_card(run_dir: Path, card: ModelCard, base: Base, recipe: TuneRecipe) -> None:
    """README.md of `model/`, when everything is known that will be."""
    seconds = sum(done_number(path.parent, "seconds") for path in sorted(run_dir.glob("*/DONE.json")))
    info = read_json(run_dir / "run.json")
    threads = f"{info['threads']} thread{'' if info['threads'] == 1 else 's'}"
    cost = f"{show_seconds(seconds)} on {info['machine']['cpu']}, {threads}"
    if recipe.price_usd_per_hour is not None:
        cost += f", ${seconds / 3600 * recipe.price_usd_per_hour:.2f} at ${recipe.price_usd_per_hour}/hour"
    is_adapter = recipe.lora_rank is not None
    library = "peft" if is_adapter else card.library
    text = replace(card, base_model=base.name, cost=cost, library=library).to_markdown()
    if is_adapter:
        text += (
            f"\n## How to use the adapter\n\nThis is a LoRA adapter of rank {recipe.lora_rank} in PEFT's "
            "format, not a whole model. This makes it one, ADAPTER being this directory:\n\n```\n"
            f"tenth convert {recipe.model} MERGED --adapter ADAPTER\n```\n"
        )
    write_whole(run_dir / MODEL / CARD, text.encode())
