"""The GPU's path, rehearsed on a CPU: notebooks 04 and 05 of the profiles
`t4` and `a100` (`paper` and `author` differ from it in rate and precision).

unsloth takes its CUDA branch, generates its trainer and runs its forward and
loss (``fixtures/cuda``). Real reports, prompts in the paper's format, a
random Llama of two layers in place of the hub's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from conftest import FIXTURES

from llamaxr_utils.course import artifacts
from llamaxr_utils.datasets import reports
from llamaxr_utils.llm import generate, models

ROOT = Path(__file__).parents[2]
CUDA = {"PYTHONPATH": os.pathsep.join([str(FIXTURES / "cuda"), str(ROOT)])}
#: Profile -> the card, and the precision where the profile's own has no CPU
#: form (fp16 has none in torch's optimizers).
PROFILES = {
    "t4": ("T4", {"PRECISION": "fp32"}),
    "a100": ("A100", {}),
}
SMALL = {
    "01_explore_data": {"N_STUDIES": 60, "IMAGE_SIZE": 64},
    "02_extract_features": {"BACKBONE": "densenet-small@random",
                            "N_HEATMAPS": 2},
    # Four updates that move something: the paper's warm-up alone has 30.
    "04_finetune_qlora": {"EPOCHS": 4, "WARMUP_STEPS": 0,
                          "LEARNING_RATE": 5e-3},
    "05_generate_reports": {"N_TEST": 2, "N_BASE": 1, "MAX_NEW_TOKENS": 12},
}


def run_notebook(name, profile, place, card=None, **knobs):
    """Through papermill in a process of its own; its folder of results."""
    folder = place / "runs" / f"{profile}-phantom"
    parameters = {"PROFILE": profile, "IMAGES": "phantom", "CHANGE": knobs}
    environment = {"OMP_NUM_THREADS": "1"} | {
        f"LLAMAXR_{kind.upper()}": str(place / kind)
        for kind in ("runs", "data", "models")}
    code = (
        "import json, os, sys, pathlib\n"
        "from llamaxr_utils.course import runner\n"
        "source, target, parameters, more = map(json.loads, sys.argv[1:])\n"
        "os.environ |= more\n"
        "runner.execute(pathlib.Path(source), pathlib.Path(target),"
        " parameters)"
    )
    given = [str(ROOT / "notebooks" / f"{name}.ipynb"),
             str(folder / "notebooks" / f"{name}.ipynb"), parameters,
             CUDA | ({"CARD": card} if card else {})]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(json.dumps, given)], cwd=ROOT,
        env=os.environ | environment, capture_output=True, text=True,
        check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Bases in place of the hub's, and the scores of 60 studies."""
    place = tmp_path_factory.mktemp("rehearsal")
    texts = list(reports.load_studies()["findings"].dropna())
    digits = [f"0.{i:03d}" for i in range(1000)]
    tokenizer = models.train_tokenizer(texts + 3 * digits, 3000)
    for name in ("llama-3.2-1b", "llama-3.1-8b"):
        folder = place / "models" / Path(models.base(name).source).name
        model = models.new_llama("random-llama", tokenizer)
        models.save_model(model, tokenizer, folder)
        # Where bitsandbytes sees no GPU unsloth asks for the 16-bit name.
        plain = folder.name.removesuffix("-bnb-4bit")
        folder.with_name(plain).symlink_to(folder)
    for name in ("01_explore_data", "02_extract_features"):
        run_notebook(name, "t4", place, **SMALL[name])
    return place


@pytest.fixture(scope="module")
def runs(place):
    """Profile -> folder of its run, 03 to 05; two profiles at a time."""
    first, *others = [place / "runs" / f"{p}-phantom" for p in PROFILES]
    for folder in others:
        shutil.copytree(first, folder)

    def whole(profile):
        card, more = PROFILES[profile]
        run_notebook("03_build_prompts", profile, place)
        run_notebook("04_finetune_qlora", profile, place, card,
                     **SMALL["04_finetune_qlora"], **more)
        return run_notebook("05_generate_reports", profile, place, card,
                            **SMALL["05_generate_reports"])

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(PROFILES, pool.map(whole, PROFILES)))


@pytest.fixture(params=PROFILES)
def rehearsed(request, runs):
    return runs[request.param]


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


def test_the_adapter_reloads_and_writes_the_same_text(rehearsed):
    """Notebook 05's, through unsloth, and plain transformers with peft."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = (rehearsed / "adapter/adapter_config.json").read_text("utf-8")
    source = json.loads(config)["base_model_name_or_path"]
    knobs = artifacts.manifest(rehearsed, "adapter")["parameters"]
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[knobs["PRECISION"]]
    base = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    model = PeftModel.from_pretrained(base, rehearsed / "adapter")
    tokenizer = models.load_tokenizer(source)
    written = artifacts.load(rehearsed, "generations").query(
        "model == 'tuned' and scores_from == 'own'")
    prompts = artifacts.load(rehearsed, "prompts").set_index("study_id")
    again = generate.generate_reports(
        model, tokenizer, prompts.loc[written["study_id"], "prompt"],
        max_new_tokens=12)
    assert list(again["generated"]) == list(written["generated"])


PRECISIONS = """
import sys
import torch
from datasets import Dataset
from llamaxr_utils.course import machine
from llamaxr_utils.llm import finetune
finetune.import_unsloth()
from trl import SFTConfig, SFTTrainer

def start(fp16):
    model, tokenizer = finetune.load_in_4bit(sys.argv[1], "unsloth", "fp16")
    model = finetune.add_lora(model, backend="unsloth")
    rows = Dataset.from_dict({"prompt": ["a"], "completion": ["b"]})
    args = SFTConfig(output_dir="out", fp16=fp16, bf16=not fp16,
                     report_to="none")
    SFTTrainer(model=model, processing_class=tokenizer, train_dataset=rows,
               args=args)
    print(model.dtype, "starts")

start(fp16=True)
machine.compute_dtype = lambda precision: ("cpu", "bfloat16")  # the fault
start(fp16=True)
"""


def test_fp16_starts_over_float16_alone(place, tmp_path):
    """On an A100 the load's dtype follows PRECISION; the device's best,
    bfloat16, put back in its place, is refused by unsloth's trainer."""
    base = place / "models" / "Meta-Llama-3.1-8B"
    done = subprocess.run(
        [sys.executable, "-c", PRECISIONS, str(base)], cwd=tmp_path,
        capture_output=True, text=True, check=False,
        env=os.environ | CUDA | {"CARD": "A100"})
    assert "torch.float16 starts" in done.stdout, done.stderr
    assert "torch.bfloat16 starts" not in done.stdout
    assert "TypeError: Unsloth: Model is in bfloat16 precision" in done.stderr
