"""The GPU's path, rehearsed on a CPU: notebooks 04 and 05 of profile `a100`
(`paper` and `author` differ from it in rate and precision), 04 of `t4`.

unsloth takes its CUDA branch, generates its trainer and runs its forward and
loss (``fixtures/cuda``). Real reports, prompts in the paper's format, a
random Llama of two layers in place of the hub's.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import FIXTURES, hand_over

from llamaxr_utils.course import artifacts, run, runner
from llamaxr_utils.datasets import reports
from llamaxr_utils.datasets.conditions import CONDITIONS, VIEWS
from llamaxr_utils.llm import generate, models, prompts

ROOT = Path(__file__).parents[2]
CUDA = {"PYTHONPATH": os.pathsep.join([str(FIXTURES / "cuda"), str(ROOT)])}
#: Profile -> the card, how many of the notebooks, and the precision where the
#: profile's own has no CPU form (fp16 has none in torch's optimizers).
PROFILES = {"t4": ("T4", 1, {"PRECISION": "fp32"}), "a100": ("A100", 2, {})}
SMALL = {
    # Four updates that move something: the paper's warm-up alone has 30.
    "04_finetune_qlora": {"EPOCHS": 4, "WARMUP_STEPS": 0,
                          "LEARNING_RATE": 5e-3},
    "05_generate_reports": {"N_TEST": 2, "N_BASE": 1, "MAX_NEW_TOKENS": 12},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Bases in place of the hub's, and their tokenizer."""
    place = tmp_path_factory.mktemp("rehearsal")
    texts = list(reports.load_studies()["findings"].dropna())
    digits = [f"0.{i:03d}" for i in range(1000)]
    tokenizer = models.train_tokenizer(texts + 3 * digits, 3000)
    for name in ("llama-3.2-1b", "llama-3.1-8b"):
        source = Path(models.base(name).source).name
        folder = place / "data" / "models" / source
        model = models.new_llama("random-llama", tokenizer)
        models.save_model(model, tokenizer, folder)
        # Where bitsandbytes sees no GPU unsloth asks for the 16-bit name.
        folder.with_name(source.removesuffix("-bnb-4bit")).symlink_to(folder)
    return place


def real_pairs():
    """20 studies: 36 random scores, as the paper has them, and the report."""
    rng = np.random.default_rng(3407)
    table = reports.load_studies().query("split_r2gen != 'none'")
    table = table.sample(20, random_state=3407)
    scores = [pd.DataFrame(rng.random((2, 18)).round(4), VIEWS, CONDITIONS)
              for _ in range(20)]
    return table.assign(
        split=table["split_r2gen"], completion=table["findings"],
        prompt=list(map(prompts.build_prompt, scores)), n_prompt_tokens=0)


@pytest.fixture(scope="module", params=PROFILES)
def rehearsed(request, place):
    """In kernels that see the card; the folder of results."""
    card, notebooks, more = PROFILES[request.param]
    base = run.knob_value("03_build_prompts", "BASE", request.param)
    source = place / "data/models" / Path(models.base(base).source).name
    tokenizer = models.load_tokenizer(str(source))
    folder = place / "runs" / f"{request.param}-phantom"
    hand_over(folder, real_pairs(), tokenizer.save_pretrained, base,
              SCORE_FORMAT="paper")
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in {
            **CUDA, "CARD": card, "OMP_NUM_THREADS": "1",
            "LLAMAXR_RUNS": f"{place}/runs", "LLAMAXR_DATA": f"{place}/data",
        }.items():
            patch.setenv(variable, value)
        for name in [*SMALL][:notebooks]:
            runner.execute(
                ROOT / "notebooks" / f"{name}.ipynb",
                runner.executed_path(folder, name),
                {"PROFILE": request.param, "IMAGES": "phantom",
                 "CHANGE": SMALL[name] | more})
    return folder


def test_the_loss_of_the_first_step_is_the_reference_and_falls(rehearsed):
    facts = pd.read_csv(rehearsed / "tables" / "training.csv",
                        index_col=0)["this run"]
    returned = float(facts["first_batch_loss"])
    expected = float(facts["first_batch_loss_by_plain_torch"])
    assert returned == pytest.approx(expected, rel=0.01)
    assert int(facts["steps"]) == 4
    log = artifacts.load(rehearsed, "training_log")
    losses = log.loc[log["split"].eq("val"), "loss"]
    assert losses.iloc[-1] < losses.iloc[0] - 0.02


@pytest.mark.parametrize("rehearsed", ["a100"], indirect=True)
def test_the_adapter_reloads_and_writes_the_same_text(rehearsed):
    """Notebook 05's, through unsloth, and plain transformers with peft."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = (rehearsed / "adapter/adapter_config.json").read_text("utf-8")
    source = json.loads(config)["base_model_name_or_path"]
    base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(base, rehearsed / "adapter")
    written = artifacts.load(rehearsed, "generations").query(
        "model == 'tuned' and scores_from == 'own'")
    prompts = artifacts.load(rehearsed, "prompts").set_index("study_id")
    again = generate.generate_reports(
        model, models.load_tokenizer(source),
        prompts.loc[written["study_id"], "prompt"], max_new_tokens=12)
    assert list(again["generated"]) == list(written["generated"])


FP16 = """
import sys
from datasets import Dataset
from llamaxr_utils.llm import finetune
model, tokenizer = finetune.load_in_4bit(sys.argv[1], "unsloth", "fp16")
model = finetune.add_lora(model, backend="unsloth")
from trl import SFTConfig, SFTTrainer
rows = Dataset.from_dict({"prompt": ["a"], "completion": ["b"]})
args = SFTConfig(output_dir="out", fp16=True, bf16=False, report_to="none")
SFTTrainer(model=model, processing_class=tokenizer, train_dataset=rows,
           args=args)
print(model.dtype, "starts")
"""


def test_fp16_starts_on_an_a100(place, tmp_path):
    """The load's dtype follows PRECISION: over the card's best, bfloat16,
    unsloth's trainer refuses fp16."""
    base = place / "data" / "models" / "Meta-Llama-3.1-8B"
    done = subprocess.run(
        [sys.executable, "-c", FP16, str(base)], cwd=tmp_path,
        capture_output=True, text=True, check=False,
        env=os.environ | CUDA | {"CARD": "A100"})
    assert "torch.float16 starts" in done.stdout, done.stderr
