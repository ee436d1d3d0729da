"""The GPU comparison of backends, on a tiny shape and a CPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from llamaxr_utils.course.run import project_folder
from llamaxr_utils.llm import finetune, models
from llamaxr_utils.studies import rebuild

SCRIPT = Path(__file__).parents[1] / "gpu" / "compare_backends.py"
LOG = project_folder() / "figures" / "data" / "backends-gpu.csv"


@pytest.fixture(scope="module")
def command():
    spec = importlib.util.spec_from_file_location("compare_backends", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_shape_is_that_of_llama_3_1_8b(command):
    """Its published size, and the paper's trainable parameters."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **command.SHAPES["llama-3.1-8b"], tie_word_embeddings=False
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
        assert sum(w.numel() for w in model.parameters()) == 8_030_261_248
        model = get_peft_model(
            model, LoraConfig(r=16, target_modules=[*finetune.LORA_TARGETS])
        )
    trained = [w.numel() for w in model.parameters() if w.requires_grad]
    assert sum(trained) == rebuild.lora_parameters(16) == 41_943_040


def test_texts_have_exactly_the_length(command):
    tokenizer = models.train_tokenizer(["a"], vocab_size=259)
    pairs = command.texts(5, 64)
    for text in pairs["prompt"] + pairs["completion"]:
        assert len(tokenizer(text)["input_ids"]) + 1 == 64
        assert text[:8] == text[8:16]
    assert (pairs["prompt"] + pairs["completion"]).nunique() == 5


def test_without_a_gpu_it_says_so(command, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert command.main([]) == 2
    said = capsys.readouterr().err
    for words in ("What: There is no GPU", "Why: ", "Do: ", "--shape tiny"):
        assert words in said


def test_the_ratios_are_of_one_run(command):
    table = pd.DataFrame({
        "backend": ["peft", "unsloth"], "tokens_per_second": [1000, 1900],
        "peak_memory_gb": [20.0, 8.0],
    })
    assert command.ratios(table).startswith(
        "unsloth against peft: 1.90 times as fast, 60 % less memory"
    )


def test_both_backends_run_end_to_end_on_a_tiny_shape(tmp_path):
    if importlib.util.find_spec("unsloth") is None:
        pytest.skip("unsloth is not installed here")
    before = LOG.read_bytes() if LOG.exists() else None
    out = tmp_path / "backends.csv"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--shape", "tiny", "--device", "cpu",
         "--steps", "10", "--batch", "2", "--length", "64", "--rate", "5e-3",
         "--out", str(out)],
        capture_output=True, text=True, check=False, timeout=240,
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    table = pd.read_csv(out)
    assert list(table["backend"]) == ["peft", "unsloth"]
    assert (table["last_loss"] < table["first_loss"] - 0.5).all()
    assert abs(table["first_loss"].diff().iloc[1]) < 0.05
    assert (table["tokens_per_second"] > 0).all()
    assert table["versions"].str.contains("unsloth").all()
    assert "times as fast" in done.stdout
    assert "say nothing" in done.stdout
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"backends.csv", "backends.svg", "backends.png"}
    assert (LOG.read_bytes() if LOG.exists() else None) == before
