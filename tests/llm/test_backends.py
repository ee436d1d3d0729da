"""Both backends, one function; 4 bit, and what happens without a kernel."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import test_finetune as tiny
import torch
from safetensors.torch import load_file, save_file
from test_models import PROMPTS

from llamaxr_utils.course import machine
from llamaxr_utils.llm import finetune, generate


def losses(base, folder, backend, seed=3407, first=False):
    """Training and validation losses; `first` uses the model before."""
    model, tokenizer = finetune.load_in_4bit(base, backend)
    model = finetune.add_lora(model, backend=backend, seed=seed)
    if first:
        model.eval()
        with torch.inference_mode():
            model(tokenizer(tiny.OTHER, return_tensors="pt")["input_ids"])
            generate.generate_reports(
                model, tokenizer, [PROMPTS["effusion"]], max_new_tokens=4)
    _, result = tiny.train(base, tiny.make_pairs(), folder, 2,
                           (model, tokenizer), optim="adamw_8bit")
    return list(result.log["loss"])


def furthest_apart(a, b):
    return np.abs(np.subtract(a, b)).max()


def in_a_process_of_its_own(base, folder):
    """What unsloth does, told as JSON; run by `with_unsloth`."""
    folder = Path(folder)
    heavy = {"unsloth", "trl", "transformers", "peft"}
    told = {"before": sorted(sys.modules.keys() & heavy)}
    model, _ = finetune.load_in_4bit(base, "unsloth")
    told["stored"] = finetune.stored_as(model)
    torch.set_num_threads(1)
    model = finetune.add_lora(model, backend="unsloth")
    save_file(tiny.trained_weights(model), folder / "start.safetensors")
    for first in (False, True):
        told[f"first {first}"] = losses(base, folder / "c", "unsloth",
                                        first=first)
    (folder / "told.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def with_unsloth(base, tmp_path_factory):
    """unsloth changes trl for a whole process, so it gets its own."""
    if importlib.util.find_spec("unsloth") is None:
        pytest.skip("unsloth is not installed here")
    folder = tmp_path_factory.mktemp("unsloth")
    code = ("import sys, test_backends as tests; "
            "tests.in_a_process_of_its_own(*sys.argv[1:])")
    done = subprocess.run(
        [sys.executable, "-c", code, base, str(folder)],
        capture_output=True, text=True, check=False, timeout=300, cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path),
                          "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert "should be imported before" not in done.stderr  # unsloth's words
    return folder, json.loads((folder / "told.json").read_text())


def test_unsloth_comes_first_and_starts_as_peft(base, with_unsloth):
    """The package's modules import nothing heavy, `load_in_4bit` does. One
    seed makes the same LoRA in both. (Reloading: `test_rehearsal`.)"""
    folder, told = with_unsloth
    assert told["before"] == [] and told["stored"] == "nf4"
    start = load_file(folder / "start.safetensors")
    assert tiny.furthest(start, tiny.trained_weights(tiny.fresh(base)[0])) == 0


def test_both_backends_have_the_same_loss_curve(base, with_unsloth, tmp_path):
    """The noise is what another seed of LoRA's matrices makes."""
    ours = losses(base, tmp_path, "peft")
    noise = furthest_apart(ours, losses(base, tmp_path, "peft", seed=1))
    assert ours[-2] < ours[0] - 0.1  # it learned something
    assert furthest_apart(ours, with_unsloth[1]["first False"]) < noise / 10


def test_evaluating_before_training_changes_nothing(
    base, tmp_path, request, monkeypatch
):
    """The corruption that `keep_weights_packed_once` is there for."""
    from bitsandbytes.nn.modules import has_avx512bf16

    if not has_avx512bf16() or machine.pick_device()[0] != "cpu":
        pytest.skip("no AVX512-BF16 on this CPU, or a GPU: nothing repacks")
    told = request.getfixturevalue("with_unsloth")[1]
    assert furthest_apart(told["first False"], told["first True"]) < 1e-4
    alone = losses(base, tmp_path, "peft")
    later = losses(base, tmp_path, "peft", first=True)
    assert furthest_apart(alone, later) < 1e-4
    monkeypatch.setattr(finetune, "keep_weights_packed_once", lambda _: None)
    with contextlib.suppress(RuntimeError):  # shapes that do not fit
        wrong = losses(base, tmp_path, "peft", first=True)
        assert furthest_apart(alone, wrong) > 0.01


def test_what_is_missing_is_found_by_trying(monkeypatch):
    def no_kernel(*_, **__):
        raise NotImplementedError("no kernel for this\nlong story")

    with torch.inference_mode():
        assert finetune.no_4bit("cpu", "float32") == ""
    reason = finetune.no_4bit("mps", "float32")
    assert reason and "\n" not in reason
    monkeypatch.setattr("bitsandbytes.matmul_4bit", no_kernel)
    assert finetune.no_4bit("cpu", "float32") == (
        "NotImplementedError: no kernel for this")


def test_without_a_kernel_lora_goes_on_a_base_that_stays_as_it_is(
    base, pairs, monkeypatch, capsys, tmp_path
):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "bitsandbytes", None)
        model, tokenizer = finetune.load_in_4bit(base)
    printed = capsys.readouterr().out
    assert "LoRA, not QLoRA: the base stays in float32." in printed
    assert "on this cpu (ModuleNotFoundError" in printed
    model = finetune.add_lora(model)
    _, result = tiny.train(base, pairs, tmp_path, model=(model, tokenizer))
    assert result.log["loss"].iloc[-1] < result.log["loss"].iloc[0] - 0.1
    assert finetune.stored_as(model) == "float32"
