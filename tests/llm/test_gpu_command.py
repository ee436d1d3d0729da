"""The GPU comparison of backends, on a tiny shape and a CPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[1] / "gpu" / "compare_backends.py"


@pytest.fixture(scope="module")
def command():
    spec = importlib.util.spec_from_file_location("compare_backends", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_shape_is_that_of_llama_3_1_8b(command):
    """Its published size; `test_finetune` has the trainable parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **command.SHAPES["llama-3.1-8b"], tie_word_embeddings=False)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert sum(w.numel() for w in model.parameters()) == 8_030_261_248


def test_without_a_gpu_it_says_so(command, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert command.main([]) == 2
    said = capsys.readouterr().err
    for words in ("What: There is no GPU", "Why: ", "Do: ", "--shape tiny"):
        assert words in said


def test_the_ways_run_and_agree_on_a_tiny_shape(command, tmp_path):
    if importlib.util.find_spec("unsloth") is None:
        pytest.skip("unsloth is not installed here")
    out = tmp_path / "gpu.csv"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--shape", "tiny", "--device", "cpu",
         "--steps", "5", "--out", str(out)],
        capture_output=True, text=True, check=False, timeout=400,
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    table = pd.read_csv(out, index_col="way")
    assert list(table.index) == list(command.WAYS)
    assert table["first_loss"].max() < 1.01 * table["first_loss"].min()
    learns = table["last_loss"] < table["first_loss"] - 0.001
    assert learns.drop("unsloth, profile paper").all()
