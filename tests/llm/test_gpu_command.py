"""The GPU comparison of backends, on a tiny shape and a CPU."""

import compare_backends
import pandas as pd
import pytest
import torch

from llamaxr_utils.course import machine
from llamaxr_utils.llm import finetune


def test_the_papers_trainable_parameters():
    """Rank 16 on the seven linear layers of Llama 3.1 8B."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **compare_backends.SHAPES["llama-3.1-8b"], tie_word_embeddings=False)
    lora = LoraConfig(r=16, target_modules=list(finetune.LORA_TARGETS))
    with torch.device("meta"):
        model = get_peft_model(LlamaForCausalLM(config), lora)
    trainable, total = model.get_nb_trainable_parameters()
    assert trainable == 41_943_040
    assert total - trainable == 8_030_261_248


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(machine, "pick_device", lambda: ("cpu", "its name"))
    with pytest.raises(SystemExit):
        compare_backends.main([])
    assert "there is no GPU" in capsys.readouterr().err


def test_two_ways_run_and_agree_on_a_tiny_shape(tmp_path, monkeypatch):
    """unsloth's are those of `test_backends` and `test_rehearsal`."""
    ways = {w: compare_backends.WAYS[w] for w in ("peft", "bare loop")}
    monkeypatch.setattr(compare_backends, "WAYS", ways)
    options = ["--shape", "tiny", "--steps", "5", "--out"]
    assert compare_backends.main([*options, f"{tmp_path}/gpu.csv"]) == 0
    table = pd.read_csv(tmp_path / "gpu.csv", index_col="way")
    assert list(table.index) == list(ways)
    assert table["first_loss"].max() < 1.01 * table["first_loss"].min()
    assert (table["last_loss"] < table["first_loss"] - 0.001).all()
