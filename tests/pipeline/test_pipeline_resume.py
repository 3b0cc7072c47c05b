"""A run that is killed again and again ends bit for bit where an uninterrupted one ends."""

import dataclasses
import shutil
import signal

from kill_points import POINTS, contents

OFTEN = "checkpoint_every_seconds=0.001"  # a checkpoint after every step
BY_NAME = {point.name: point for point in POINTS}


def test_killed_at_five_places_one_after_another_a_run_ends_bit_for_bit_the_same(smoke, reference, tmp_path):
    for name in (
        "mid-pretraining",
        "mid-checkpoint-write",
        "between stages",
        "mid-rollout",
        "mid-update, masters changed",
    ):
        assert smoke.run(tmp_path, OFTEN, point=BY_NAME[name].to_json()) == -signal.SIGKILL
    assert smoke.run(tmp_path, OFTEN) == 0
    continued, uninterrupted = contents(tmp_path / "smoke"), contents(reference)
    assert "04-zero/model/model.safetensors" in continued
    assert continued.keys() == uninterrupted.keys()
    assert [name for name in continued if continued[name] != uninterrupted[name]] == []


def test_a_run_stopped_by_ctrl_c_can_be_continued(smoke, reference, finished):
    for stage in ("04-zero", "05-measure-zero"):
        shutil.rmtree(finished / stage)
    stop = dataclasses.replace(BY_NAME["mid-rollout"], signal=signal.SIGINT)
    assert smoke.run(finished.parent, OFTEN, point=stop.to_json()) == 1  # KeyboardInterrupt reached the top
    assert smoke.run(finished.parent, OFTEN) == 0
    assert contents(finished) == contents(reference)
