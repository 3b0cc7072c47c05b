"""The engine: requests in, tokens out, everybody who runs gets at least one token per step.

Why: it makes rollouts, evaluation, chat and the API. A step asks the scheduler what to compute, the runner to
compute it, the sampler to draw, and writes down what came.
In:  `Request`s of token ids.  Out: `Update`s, or from `generate` whole `Generation`s.
Not here: text and stop strings (a room above), who computes when (scheduler.py), tensors (runner.py).

Speculation is *draw, then compare*: the token of every position is drawn from the network's own distribution
with that position's own number, and a guess is kept if it is that token. So answers are the same, token for
token, with and without it, at every temperature.
"""

import time
from collections.abc import Callable, Sequence

import torch

from tenth.base.errors import ConfigError
from tenth.engine.adapters import ServedAdapter, read_adapters
from tenth.engine.batcher import Batcher
from tenth.engine.block_pool import BLOCK, BlockPool
from tenth.engine.build import build_cold_blocks, build_drafter, build_runner, count_blocks
from tenth.engine.draw import draw
from tenth.engine.generate import generate
from tenth.engine.ledger import Ledger
from tenth.engine.request import Generation, Request, SamplingParams, Update
from tenth.engine.runner import Runner
from tenth.engine.scheduler import Scheduler
from tenth.engine.sequence import Sample, sample_streams
from tenth.engine.settings import EngineSettings
from tenth.engine.speculator import Speculator
from tenth.engine.stats import EngineStats
from tenth.model.transformer import Transformer


class Engine:
    """Samples from one model in this process."""

    def __init__(
        self,
        model: Transformer,
        settings: EngineSettings = EngineSettings(),  # noqa: B008  frozen
        *,
        runner: Runner | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model, self.settings, self.clock = model, settings, clock
        self.runner = runner or build_runner(model, settings)
        self.num_blocks = count_blocks(model, self.runner, settings)
        self.max_tokens = min(model.config.max_position_embeddings, self.num_blocks * BLOCK)  # of a sequence
        self.version = 0
        self.cold = build_cold_blocks(model, self.runner, settings)
        self.pool = BlockPool(self.num_blocks, on_evict=self.cold.save if self.cold else None)
        self.scheduler = Scheduler(
            self.pool,
            max_sequences=settings.max_sequences,
            max_batch_tokens=settings.max_batch_tokens,
            max_waiting=settings.max_waiting,
            prefix_caching=settings.prefix_caching,
            salt=self._salt(),
            spilled=self.cold.fetch if self.cold else None,
        )
        self.batcher = Batcher(
            max_sequences=settings.max_sequences, max_blocks=(self.max_tokens + BLOCK - 1) // BLOCK
        )
        self.ledger = Ledger(self.scheduler, self.batcher, self.runner)
        drafter = build_drafter(model, settings, self.runner, self.batcher, self.pool)
        self.speculator = Speculator(drafter, clock)
        self._steps = self._preemptions = 0
        self.runner.allocate(self.num_blocks)
        self.adapters: dict[str, ServedAdapter] = {}
        self._read_adapters()

    def _salt(self) -> bytes:
        # On disk the name of a prefix must mean the same to everybody, so it tells the weights themselves.
        return self.cold.store.salt if self.cold else f"weights {self.version}".encode()

    # requests

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do or to tell."""
        return self.scheduler.has_work or bool(self.ledger.updates)

    @property
    def has_room(self) -> bool:
        """Whether the queue takes another request."""
        return self.scheduler.num_waiting < self.settings.max_waiting

    def add(self, request: Request) -> None:
        """Queue a request; its tokens come from `step`."""
        self.submit(request)

    def submit(self, request: Request, *, is_quiet: bool = False) -> list[Sample]:
        """The same for callers who look at the samples themselves; quiet ones make no updates."""
        if request.request_id in self.ledger.requests:
            raise ConfigError(
                f"request {request.request_id} is running; give every request an id of its own."
            )
        name = f"request {request.request_id}: the prompt"
        self.check(request.prompt_ids, request.params, name=name, adapter=request.adapter)
        request.check_vocabulary(self.model.config.vocab_size)
        streams = request.streams or sample_streams(request.prompt_ids, request.params)
        first = Sample(request, 0, streams[0], tokens=request.prompt_ids)
        first.siblings = [Sample(request, i, streams[i], tokens=()) for i in range(1, request.params.n)]
        samples = [first, *first.siblings]
        for sample in samples:
            sample.tokens, sample.is_quiet = first.tokens, is_quiet
            sample.salt = self.adapters[request.adapter].fingerprint if request.adapter is not None else b""
        self.scheduler.add(first)
        self.ledger.requests[request.request_id] = samples
        return samples

    def check(
        self, prompt_ids: Sequence[int], params: SamplingParams, *, name: str, adapter: str | None = None
    ) -> None:
        """Refuse what this engine can never serve."""
        if adapter is not None and adapter not in self.adapters:
            raise ConfigError(
                f"{name} asks for adapter '{adapter}', but this engine serves "
                f"{', '.join(self.adapters) or 'no adapter'}; choose one of these, or attach it and call "
                "refresh_adapters()."
            )
        if not prompt_ids:
            raise ConfigError(f"{name} is empty; give at least one token.")
        context = self.model.config.max_position_embeddings
        longest = len(prompt_ids) + params.max_new_tokens
        asks = f"{name} has {len(prompt_ids)} tokens and may grow by {params.max_new_tokens}, but"
        if longest > context:
            raise ConfigError(
                f"{asks} the model's context is {context}; shorten the prompt or lower max_new_tokens."
            )
        if longest > self.max_tokens:
            raise ConfigError(
                f"{asks} the cache has room for {self.max_tokens} tokens; shorten the prompt, lower "
                "max_new_tokens or raise cache_bytes."
            )

    def abort(self, request_id: str, sample: int | None = None) -> None:
        """End a request, or one sample of it, in whatever state; nothing happens where it has ended."""
        for each in list(self.ledger.requests.get(request_id, ())):
            if sample is None or sample == each.index:
                self.ledger.abort(each)

    def generate(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams, *, adapter: str | None = None
    ) -> list[list[Generation]]:
        """`params.n` samples for every prompt, in order."""
        return generate(self, prompts, params, adapter=adapter)

    # a step

    def step(self) -> list[Update]:
        """Compute one step and tell what is new."""
        self.advance()
        updates, self.ledger.updates = self.ledger.updates, []
        return updates

    def advance(self) -> None:
        """Compute one step; what is new is told by the next `step`."""
        try:
            self._advance()
        except BaseException:  # an interrupt, or no memory: what had been planned is not in the cache
            self._start_over()
            raise

    @torch.inference_mode()
    def _advance(self) -> None:
        began = self.clock()
        plan = self.scheduler.schedule()
        if plan.preempted:
            self._preemptions += len(plan.preempted)
            self.batcher.drop(plan.preempted)  # type: ignore[arg-type]
        if self.cold:
            self.cold.load(plan.loads)
        if plan.copies:
            self.runner.copy_blocks(plan.copies)
        if not plan.works:
            return
        self._steps += 1
        packed = self.batcher.pack(plan.works)
        draws = draw(self.runner.forward(packed.batch), packed)
        outcome = self.ledger.record(plan.works, packed, draws, wants_advances=self.speculator.is_on)
        self.speculator.step_done(outcome, began=began)

    # weights and memory

    def refresh_weights(self) -> int:
        """The model's weights have changed: forget everything computed with the old. -> the new version

        Whoever runs goes on from the tokens it has, which are computed anew.
        """
        self._read_adapters()
        self._count_version()
        self.runner.refresh()
        if self.cold:
            self.cold.weights_changed(self.model)
        self._start_over()
        return self.version

    def refresh_adapters(self) -> int:
        """The model's adapters have learnt, come or gone: read them again, and the base not. -> the version

        Prefixes of those that are as they were, and of the base, stay found. Whoever runs with a changed one
        goes on from the tokens it has; whoever runs with one that is gone ends with an error.
        """
        if self._read_adapters():
            self._count_version()
        return self.version

    def _count_version(self) -> None:
        self.version += 1
        self.ledger.version = self.version

    def _read_adapters(self) -> bool:
        """-> whether any has changed"""
        before, now = self.adapters, read_adapters(self.model)
        if before or now:
            self.runner.set_adapters({name: each.pairs for name, each in now.items()})
        self.adapters, self.batcher.adapters = now, {name: number for number, name in enumerate(now)}
        marks = [{(name, each.fingerprint) for name, each in of.items()} for of in (before, now)]
        changed = {name for name, _ in marks[0] ^ marks[1]}
        samples = [each for request in self.ledger.requests.values() for each in request]
        for sample in samples:
            if sample.adapter in changed:
                self._renew(sample, now.get(sample.adapter))
        return bool(changed)

    def _renew(self, sample: Sample, adapter: ServedAdapter | None) -> None:
        if adapter is None:
            self.ledger.abort(sample, error=f"adapter '{sample.adapter}' was detached while it was in use")
        else:
            self.scheduler.renew(sample, salt=adapter.fingerprint)
            self.batcher.drop([sample])

    def sleep(self) -> None:
        """Free the cache; what can be found in it goes to `spill_dir`, if there is one. Requests stay; the
        model's own weights belong to the caller."""
        if self.cold:
            self.cold.save_all(self.pool.named())
        self._start_over()
        self.runner.free()

    def wake(self) -> None:
        """Have a cache again."""
        self.runner.allocate(self.num_blocks)

    def close(self) -> None:
        """Abort all requests and free the cache, as `sleep` does. The engine of the next process finds it."""
        for request_id in list(self.ledger.requests):
            self.abort(request_id)
        self.sleep()
        if self.cold:
            self.cold.store.close()

    def _start_over(self) -> None:
        self.scheduler.reset(salt=self._salt())
        self.batcher.drop([sample for samples in self.ledger.requests.values() for sample in samples])

    def stats(self) -> EngineStats:
        """How things stand."""
        return EngineStats(
            running=self.scheduler.num_running,
            waiting=self.scheduler.num_waiting,
            free_blocks=self.pool.num_free,
            total_blocks=self.num_blocks,
            steps=self._steps,
            prompt_tokens=self.ledger.prompt_tokens,
            cached_tokens=self.ledger.cached_tokens,
            new_tokens=self.ledger.new_tokens,
            drafted_tokens=self.speculator.drafted,
            accepted_tokens=self.speculator.accepted,
            preemptions=self._preemptions,
            weights_version=self.version,
            spilled_blocks=self.cold.store.num_stored if self.cold else 0,
            loaded_blocks=self.cold.store.num_loaded if self.cold else 0,
            spill_problem=self.cold.store.problem if self.cold else None,
        )
