"""The profiles, setting by setting, beside the paper and its notebook.

What the paper states is written here from its text (arXiv 2506.03178), apart
from the file that the notebook shows.
"""

from types import SimpleNamespace

import pytest
from conftest import run_cells

from llamaxr_utils.course import run
from llamaxr_utils.llm import models
from llamaxr_utils.studies import rebuild

NAME = "04_finetune_qlora"


def knobs(profile: str) -> dict:
    return {k: run.knob_value(NAME, k, profile) for k in run.knob_table(NAME)}


def settings(profile: str, device: str = "cuda") -> dict:
    nb = SimpleNamespace(**knobs(profile))
    return run_cells("04-02", "04-16", nb=nb, device=device)["settings"]


#: Section 3.5, and the name under which the trainer knows it.
SECTION_3_5 = {
    "per_device_train_batch_size": 8,  # "the batch size was set to 8"
    "gradient_accumulation_steps": 4,  # "simulating a batch size of 32"
    "num_train_epochs": 3,  # "three complete epochs"
    "learning_rate": 2e-6, "optim": "adamw_8bit",
    "fp16": True,  # "Mixed precision training (fp16)"
    "bf16": False,
    "lr_scheduler_type": "linear", "warmup_steps": 30,
    "weight_decay": 0.01,
    "eval_strategy": "steps",  # "at regular intervals"
    "save_strategy": "steps"}  # "periodically saved"


def test_profile_paper_is_sections_3_1_to_3_5():
    def knob(notebook, name):
        return run.knob_value(notebook, name, "paper")

    # 3.1: "DenseNet121-res224-all"; 3.4: resized to 224 x 224, both views.
    assert knob("02_extract_features", "BACKBONE") == "densenet121-res224-all"
    assert knob("02_extract_features", "RESIZE") == "squash"
    assert run.Run(NAME, "paper", None).images == "real"
    assert settings("paper", "mps")["optim"] == "adamw_torch"  # Apple's GPU
    # 3.2: "LLaMA 3.1 8B 4-bit quantized", Unsloth, QLoRA.
    base = models.base(knob("03_build_prompts", "BASE"))
    assert "3.1-8B" in base.source and "4bit" in base.source
    assert knobs("paper")["BACKEND"] == "unsloth"
    # 3.3: 70/10/20, "aligning with the partitioning scheme" of others.
    assert knob("01_explore_data", "SPLIT") == "r2gen"
    # 3.4: 36 values in the Alpaca prompt of Figure 4.
    assert knob("03_build_prompts", "SCORE_FORMAT") == "paper"
    # 3.5: 41,943,040 trainable parameters, early stopping.
    assert SECTION_3_5.items() <= settings("paper").items()
    assert rebuild.lora_parameters(knobs("paper")["RANK"]) == 41_943_040
    assert knobs("paper")["PATIENCE"] > 0
    assert knobs("paper")["ROWS"] == "train"


#: Against the paper; the author's by the published notebook's log: 10 epochs,
#: every row, no evaluation.
DIFFERENCES = {
    "a100": {"LEARNING_RATE": 2e-4, "PRECISION": "bf16"},
    "author": {"LEARNING_RATE": 2e-4, "EPOCHS": 10, "PATIENCE": 0,
               "ROWS": "all", "LOSS_ON": "all", "PRECISION": "bf16"},
}


@pytest.mark.parametrize("profile", DIFFERENCES)
def test_how_other_profiles_differ_from_the_paper(profile):
    paper, other = knobs("paper"), knobs(profile)
    assert {k: other[k] for k in paper
            if other[k] != paper[k]} == DIFFERENCES[profile]
    assert settings("author")["eval_strategy"] == "no"
    assert run.knob_value("03_build_prompts", "SCORE_FORMAT",
                          "author") == "published-notebook"


SHARED = ["LEARNING_RATE", "scheduler", "WARMUP_STEPS", "weight decay",
          "OPTIMIZER", "BATCH_SIZE", "ACCUMULATION", "EPOCHS", "PRECISION"]


@pytest.mark.parametrize(("profile", "source", "same"), [
    ("paper", "paper", SHARED),
    ("author", "published notebook",
     [*SHARED, "ALPHA", "dropout", "LOSS_ON"])])
def test_the_table_agrees_wherever_its_source_speaks(monkeypatch, profile,
                                                     source, same):
    monkeypatch.setenv(run.IN_COURSE, "1")
    table = run.settings_table(run.start(NAME, profile), {"split": "r2gen"})
    table = table.set_index("setting")
    assert (table.loc[same, source] == table.loc[same, "this run"]).all()
    assert table.loc["ALPHA"].to_list() == ["not named", "16", "16"]
    assert table.loc["ROWS", "this run"] == knobs(profile)["ROWS"]
