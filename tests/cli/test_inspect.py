"""`tenth inspect`: the real V3's numbers, other people's directories, and clear refusals."""

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from tenth.base.errors import CheckpointError, ConfigError
from tenth.cli.inspect import inspect, summarize
from tenth.model.hf_config import to_hf
from tenth.model.presets import preset

app = typer.Typer()
app.command()(inspect)


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "200"})


def test_v3_in_json():
    summary = json.loads(run("v3-671b", "--json").stdout)
    assert summary["parameters"]["total"] == 671_026_419_200
    assert summary["parameters"]["activated"] == 37_552_297_472
    assert summary["parameters"]["stored_with_mtp"] == 684_489_845_504
    assert summary["kv_cache"]["bf16_bytes_per_token"] == 70_272
    assert summary["weight_bytes"]["bf16"] == 2 * 671_026_419_200
    assert summary["config"]["quantization_config"]["weight_block_size"] == [128, 128]
    # 2 * 36.63 B, and 2 * 2048.5 attended * 128 heads * 320 entries * 61 layers
    assert summary["flops_per_token"]["forward"] == 2 * 36_625_618_432 + 4_097 * 128 * 320 * 61


def test_v3_in_a_table():
    text = run("v3-671b").stdout
    assert "671.03 B" in text
    assert "37.55 B" in text
    assert "70,272 bytes" in text
    for key in to_hf(preset("v3-671b"), is_fp8=True):
        assert key in text


def test_a_network_without_mtp_says_nothing_about_it():
    assert "MTP" not in run("qwen2.5-0.5b").stdout


def test_a_directory_is_read_by_its_config_alone(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_hf(preset("tiny-zero"))), encoding="utf-8")
    from_directory = summarize(str(tmp_path))
    assert from_directory["parameters"] == summarize("tiny-zero")["parameters"]
    assert from_directory["name"] == tmp_path.name


def test_a_misspelt_name_gets_the_nearest_one():
    with pytest.raises(ConfigError, match="did you mean 'v3-671b'"):
        run("v3-67b")


def test_a_directory_without_config_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json in it"):
        run(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1, "a": 2}', " " * (1 + (16 << 20))])
def test_a_broken_config_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        run(str(tmp_path))


def test_inspecting_v3_does_not_import_torch():
    call = "from tenth.cli.inspect import inspect; inspect('v3-671b')"
    code = f"import sys; {call}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
