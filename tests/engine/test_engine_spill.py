"""Spilled blocks under an engine: what was computed once is not computed again, and tokens never change."""

import contextlib
import functools
import random
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
import torch
from engine_models import CONFIGS, QWEN, WatchedRunner, build_long, random_prompts
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import ConfigError
from tenth.engine.engine import Engine
from tenth.engine.request import Request, SamplingParams
from tenth.engine.settings import CacheDtype, EngineSettings, Speculation
from tenth.engine.torch_runner import TorchRunner

NETWORKS = {name: build_long(config) for name, config in CONFIGS.items()}
NETWORK = NETWORKS["deepseek"]
FIRST, SECOND, OTHER = random_prompts(200, 150, 300)
PARAMS = SamplingParams(max_new_tokens=6, seed=4)


def engine(directory, network=NETWORK, *, blocks=5, runner=None, **settings):
    """One with room for `blocks` blocks; a prompt of 300 tokens needs five."""
    runner = runner or WatchedRunner(network)
    settings = EngineSettings(
        cache_bytes=blocks * runner.block_bytes,
        max_sequences=4,
        spill_dir=directory,
        **{"spill_bytes": 10**8, **settings},
    )
    return Engine(network, settings, runner=runner)


def ask(engine, prompt, params=PARAMS):
    """(tokens, how many of the prompt's were found)"""
    ((answer,),) = engine.generate([prompt], params)
    assert engine.pool.num_free == engine.pool.num_blocks
    return answer.ids, answer.cached_tokens


def plain(prompt, network=NETWORK):
    """The tokens without a disk."""
    return Engine(network).generate([prompt], PARAMS)[0][0].ids


expected = functools.cache(plain)


def files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_new_engine_finds_what_one_that_was_closed_had_computed(network, tmp_path):
    before = engine(tmp_path, network)
    assert ask(before, FIRST) == (plain(FIRST, network), 0)
    before.close()
    after = engine(tmp_path, network)
    assert ask(after, FIRST) == (plain(FIRST, network), 192)  # three blocks of 64
    assert after.runner.num_tokens == 200 - 192 + 6 - 1  # the last token drawn is not computed
    assert after.stats().loaded_blocks == 3
    assert ask(after, FIRST) == (plain(FIRST, network), 192)
    assert after.stats().loaded_blocks == 3  # now it is in memory


def test_another_process_finds_it_too(tmp_path):
    code = f"""if True:
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from engine_models import CONFIGS, build_long
        from tenth.engine.engine import Engine
        from tenth.engine.request import SamplingParams
        from tenth.engine.settings import EngineSettings
        settings = EngineSettings(spill_dir=Path({str(tmp_path)!r}), max_sequences=4)
        engine = Engine(build_long(CONFIGS["deepseek"]), settings)
        engine.generate([{FIRST}], SamplingParams(max_new_tokens=1))
        engine.close()"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert ask(engine(tmp_path), FIRST) == (plain(FIRST), 192)


def test_what_a_small_cache_gave_up_comes_back_from_disk(tmp_path):
    small = engine(tmp_path)
    for _ in range(2):
        for prompt in (FIRST, OTHER, SECOND):
            assert ask(small, prompt)[0] == plain(prompt)
    small.cold.store.flush()
    assert ask(small, FIRST) == (plain(FIRST), 192)
    stats = small.stats()
    assert stats.cached_tokens == 64 * (3 + 4 + 2) + 192  # everything but the first round
    assert stats.loaded_blocks >= 3
    assert stats.spilled_blocks <= 3 + 4 + 2  # each once
    assert stats.spill_problem is None


def test_what_is_in_memory_when_the_engine_falls_asleep_is_found_when_it_wakes(tmp_path):
    sleeper = engine(tmp_path)
    ask(sleeper, FIRST)
    sleeper.sleep()
    sleeper.wake()
    assert ask(sleeper, FIRST) == (plain(FIRST), 192)


def test_a_request_under_way_goes_on_after_sleep_with_what_it_had(tmp_path):
    sleeper = engine(tmp_path)
    sleeper.add(Request(request_id="a", prompt_ids=tuple(FIRST), params=PARAMS))
    ids = [token for update in sleeper.step() for token in update.ids]
    sleeper.sleep()
    sleeper.wake()
    before = sleeper.runner.num_tokens
    while sleeper.has_work:
        ids += [token for update in sleeper.step() for token in update.ids]
    assert tuple(ids) == plain(FIRST)
    assert sleeper.runner.num_tokens - before < 64


def test_closing_aborts_who_is_still_running_and_twice_is_once(tmp_path):
    closed = engine(tmp_path)
    closed.add(Request(request_id="a", prompt_ids=tuple(FIRST), params=PARAMS))
    closed.step()
    closed.close()
    closed.close()
    assert (closed.stats().running, closed.stats().waiting) == (0, 0)
    assert ask(engine(tmp_path), FIRST) == (plain(FIRST), 192)


def test_an_engine_without_a_directory_can_be_closed_as_well():
    closed = Engine(NETWORK)
    closed.close()
    assert closed.stats().spilled_blocks == 0


def test_changed_weights_find_nothing_of_the_old_ones_and_the_old_ones_still_do(tmp_path):
    network = build_long(QWEN)
    changing = engine(tmp_path, network)
    ask(changing, FIRST)
    changing.sleep()
    with torch.no_grad():
        network.layers[0].attention.o.weight.mul_(1.5)
    changing.refresh_weights()
    changing.wake()
    assert ask(changing, FIRST) == (plain(FIRST, network), 0)
    changing.close()
    assert ask(engine(tmp_path, network), FIRST) == (plain(FIRST, network), 192)
    old = build_long(QWEN)
    assert ask(engine(tmp_path, old), FIRST) == (plain(FIRST, old), 192)


def test_another_kind_of_cache_finds_only_its_own(tmp_path):
    def runners():
        turned = WatchedRunner(NETWORK)
        turned.layout = "the same number of bytes, another order"
        return [WatchedRunner(NETWORK), TorchRunner(NETWORK, cache_dtype=CacheDtype.INT8), turned]

    for expected in (0, 192):
        for runner in runners():
            each = engine(tmp_path, runner=runner)
            assert ask(each, FIRST)[1] == expected
            each.close()


def test_damaged_files_are_computed_again_and_written_anew(tmp_path):
    before = engine(tmp_path)
    ask(before, FIRST)
    before.close()
    for path in files(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])
    mending = engine(tmp_path)
    assert ask(mending, FIRST) == (plain(FIRST), 0)
    mending.close()
    assert mending.stats().spilled_blocks == 3
    assert ask(engine(tmp_path), FIRST) == (plain(FIRST), 192)


def test_a_prefix_loses_its_end_first_when_the_disk_is_full(tmp_path):
    size = 16 + WatchedRunner(NETWORK).block_bytes
    before = engine(tmp_path, spill_bytes=3 * size)
    ask(before, FIRST)
    before.close()
    reader = engine(tmp_path, spill_bytes=3 * size)
    assert ask(reader, FIRST)[1] == 192
    reader.cold.store.flush()  # and it crashes
    writer = engine(tmp_path, spill_bytes=3 * size)
    ask(writer, SECOND[:70])
    writer.close()
    assert ask(engine(tmp_path), FIRST)[1] == 128


def test_a_directory_on_disk_without_a_prefix_cache_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="but prefix_caching is off; turn it on or leave spill_dir out"):
        EngineSettings(spill_dir=tmp_path, prefix_caching=False)


def test_the_native_runner_finds_what_it_had_computed(tmp_path):
    network = build_long(CONFIGS["deepseek"], dtype=torch.float32)
    runners = [Engine(network).runner for _ in range(2)]
    before = engine(tmp_path, network, runner=runners[0])
    ids, _ = ask(before, FIRST)
    before.close()
    after = engine(tmp_path, network, runner=runners[1])
    assert ask(after, FIRST) == (ids, 192)


@hypothesis.settings(max_examples=10)
@given(seed=st.integers(0, 10**6), speculation=st.sampled_from(Speculation))
def test_whatever_is_written_into_whatever_files_no_token_changes(seed, speculation, tmp_path_factory):
    directory = tmp_path_factory.mktemp("spill")
    chance = random.Random(seed)
    size = 16 + WatchedRunner(NETWORK).block_bytes
    for _ in range(3):
        small = engine(
            directory,
            spill_bytes=chance.choice([4, 100]) * size,
            speculation=speculation,
            max_batch_tokens=chance.choice([40, 300]),
        )
        for _ in range(4):
            prompt = chance.choice([FIRST, SECOND, OTHER, FIRST[:129] + SECOND])
            assert ask(small, prompt)[0] == expected(tuple(prompt))
            for path in files(directory):
                if chance.random() < 0.3:
                    _damage(path, chance)
        small.close()
        assert small.stats().spill_problem == "the store was closed."


def _damage(path, chance):
    """Something that may happen to a file. The disk writes meanwhile: it may be gone, or half there."""
    kind = chance.choice(["overwrite", "cut", "append", "remove", "swap"])
    with contextlib.suppress(FileNotFoundError):
        data = bytearray(path.read_bytes())
        if kind == "overwrite" and data:
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        elif kind == "cut":
            del data[chance.randrange(len(data) + 1) :]
        elif kind == "append":
            data += chance.randbytes(chance.randint(1, 99))
        elif kind == "swap":
            data = bytearray(chance.choice(files(path.parent)).read_bytes())
        if kind == "remove":
            path.unlink()
        else:
            path.write_bytes(data)
