"""The GPU comparison of backends, on a tiny shape and a CPU."""

import compare_backends
import pandas as pd
import pytest
import torch

from llamaxr_utils.llm import finetune
from llamaxr_utils.studies import rebuild


def test_the_papers_trainable_parameters():
    """Rank 16 on the seven linear layers of Llama 3.1 8B."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **compare_backends.SHAPES["llama-3.1-8b"], tie_word_embeddings=False)
    assert (config.hidden_size, config.vocab_size) == (
        rebuild.WIDTH, rebuild.VOCABULARY)  # as in Figure 1
    lora = LoraConfig(r=16, target_modules=list(finetune.LORA_TARGETS))
    with torch.device("meta"):
        model = get_peft_model(LlamaForCausalLM(config), lora)
    trainable, total = model.get_nb_trainable_parameters()
    assert trainable == rebuild.lora_parameters(16) == 41_943_040
    assert total - trainable == 8_030_261_248


def test_two_ways_run_and_agree_on_a_tiny_shape(tmp_path, monkeypatch):
    """One by the command, one here; unsloth's are those of `test_backends`
    and `test_rehearsal`."""
    ways = {"bare loop": compare_backends.WAYS["bare loop"]}
    with monkeypatch.context() as patch:
        patch.setattr(compare_backends, "WAYS", ways)
        assert compare_backends.main([
            "--shape", "tiny", "--steps", "4", "--base", str(tmp_path),
            "--out", f"{tmp_path}/gpu.csv"]) == 0
    (bare,) = pd.read_csv(tmp_path / "gpu.csv").to_dict("records")
    (base,) = tmp_path.glob("*-bnb-4bit")
    peft = compare_backends.train_one("peft", str(base), 4)
    assert (bare["way"], peft["way"]) == ("bare loop", "peft")
    assert bare["first_loss"] == pytest.approx(peft["first_loss"], rel=0.01)
    for row in (bare, peft):
        assert row["last_loss"] < row["first_loss"] - 0.001
