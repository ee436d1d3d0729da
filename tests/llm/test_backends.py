"""Both backends, one function; 4 bit, and 16 where there is no kernel."""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_finetune import (
    OTHER,
    PROMPTS,
    fresh,
    furthest,
    make_pairs,
    saved,
    train,
    trained_weights,
)
from test_models import tiny_tokenizer

from llamaxr_utils.course import machine
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.llm import finetune, generate, models

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The laptop's Llama: its adapter is large enough for 8-bit states."""
    folder = tmp_path_factory.mktemp("small")
    tokenizer = tiny_tokenizer()
    model = models.new_llama("small-llama", tokenizer, seed=1)
    models.save_model(model, tokenizer, folder)
    return str(folder)


# --- the same losses --------------------------------------------------------


def losses(base, folder, backend, seed=3407, first=None, **settings):
    """Training and validation losses; `first` uses the model before."""
    model, tokenizer = finetune.load_in_4bit(base, backend)
    model = finetune.add_lora(model, backend=backend, seed=seed)
    if first:
        first(model, tokenizer)
    _, result = train(base, make_pairs(), folder, 2, (model, tokenizer),
                      **settings)
    return list(result.log["loss"]), result.facts["optimizer"]


def read_and_write(model, tokenizer):
    import torch

    model.eval()
    with torch.inference_mode():
        model(tokenizer(OTHER, return_tensors="pt")["input_ids"])
        generate.generate_reports(
            model, tokenizer, [PROMPTS["effusion"]], max_new_tokens=4
        )


def without_guard(patch):
    """As if nobody switched bitsandbytes' repacking off."""
    for module in (finetune, generate):
        patch.setattr(module, "keep_weights_packed_once", lambda model: 0)
    if "unsloth" in sys.modules:  # it has a guard of its own on a CPU
        patch.setattr(
            "unsloth_zoo.cpu.loader._disable_bnb_cpu_weight_packing",
            lambda model: 0,
        )


def around_an_evaluation(base, folder, backend):
    """Losses of a training, of one after an evaluation, and of one after an
    evaluation without the guard."""
    told = {
        "alone": losses(base, folder, backend)[0],
        "guarded": losses(base, folder, backend, first=read_and_write)[0],
    }
    with pytest.MonkeyPatch.context() as patch:
        without_guard(patch)
        try:
            told["unguarded"] = losses(
                base, folder, backend, first=read_and_write
            )[0]
        except RuntimeError:
            told["unguarded"] = None  # shapes do not fit: wrong, not silent
    return told


AS_THE_PROFILES = dict(optim="adamw_8bit", num_train_epochs=2)
ORDERED = {"unsloth", "trl", "transformers", "peft"}


def in_a_process_of_its_own(base, small, folder):
    """What unsloth does, told as JSON; run by `with_unsloth`."""
    folder = Path(folder)
    told = {"before": sorted(sys.modules.keys() & ORDERED)}
    asked = []

    class Listener(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            asked.append(name)

    sys.meta_path.insert(0, Listener())
    model, tokenizer = finetune.load_in_4bit(base, "unsloth")
    told["asked"] = [name for name in asked if name in ORDERED]
    told["stored"] = finetune.stored_as(model)
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    model = finetune.add_lora(model, backend="unsloth")
    save_file(trained_weights(model), folder / "start.safetensors")
    prompts = list(PROMPTS.values())
    train(base, make_pairs(), folder / "c", None, (model, tokenizer))
    text = generate.generate_reports(model, tokenizer, prompts[:3],
                                     max_new_tokens=6)["generated"]
    model.save_pretrained(folder / "adapter")
    model, tokenizer = finetune.load_adapter(
        base, folder / "adapter", "unsloth"
    )
    again = generate.generate_reports(model, tokenizer, prompts[:3],
                                      max_new_tokens=6)["generated"]
    told |= {"text": list(text), "again": list(again)}
    told["losses"], told["optimizer"] = losses(
        small, folder / "c", "unsloth", **AS_THE_PROFILES
    )
    if has_the_trouble():
        told |= around_an_evaluation(base, folder / "c", "unsloth")
    (folder / "told.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def with_unsloth(base, small, tmp_path_factory):
    """unsloth changes trl for a whole process, so it gets its own."""
    if importlib.util.find_spec("unsloth") is None:
        pytest.skip("unsloth is not installed here")
    folder = tmp_path_factory.mktemp("unsloth")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_backends"
    code += "; test_backends.in_a_process_of_its_own(*sys.argv[2:])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), base, small,
         str(folder)],
        capture_output=True, text=True, check=False, timeout=300,
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads((folder / "told.json").read_text())


def test_unsloth_is_imported_before_what_it_changes(with_unsloth):
    """The package's modules import nothing heavy, `load_in_4bit` does."""
    told = with_unsloth[1]
    assert told["before"] == []
    assert told["asked"][0] == "unsloth"
    assert {"transformers", "peft"} < set(told["asked"])
    assert told["stored"] == "nf4"


def test_the_seed_makes_the_same_lora_in_both(base, with_unsloth):
    from safetensors.torch import load_file

    start = load_file(with_unsloth[0] / "start.safetensors")
    assert furthest(start, trained_weights(fresh(base)[0])) == 0


def test_an_adapter_of_unsloth_writes_the_same_when_reloaded(with_unsloth):
    assert with_unsloth[1]["text"] == with_unsloth[1]["again"]


def test_both_backends_have_the_same_loss_curve(
    small, with_unsloth, tmp_path
):
    """Same settings, same small model. The noise is what another seed of
    LoRA's matrices makes. What remains: on a CPU unsloth takes torch's AdamW
    where an 8-bit one was asked for."""
    from bitsandbytes.optim import GlobalOptimManager

    # It knows weights by id: one of ours could have that of an embedding of
    # another test, and stay in 32 bit.
    GlobalOptimManager.get_instance().initialize()
    told = with_unsloth[1]
    ours, optimizer = losses(small, tmp_path, "peft", **AS_THE_PROFILES)
    other, _ = losses(small, tmp_path, "peft", seed=1, **AS_THE_PROFILES)
    assert optimizer.startswith("bitsandbytes AdamW, 70 of 70")
    assert told["optimizer"].startswith(("torch AdamW", "bitsandbytes"))
    assert ours[-2] < ours[0] - 0.5  # it learned something
    noise = furthest_apart(ours, other)
    difference = furthest_apart(ours, told["losses"])
    print(f"unsloth - peft {difference:.5f}, seeds {noise:.5f}")
    assert difference < noise / 10


def furthest_apart(a, b):
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


# --- evaluating first does no harm ------------------------------------------


def has_the_trouble():
    from bitsandbytes.nn.modules import has_avx512bf16

    return has_avx512bf16() and machine.pick_device()[0] == "cpu"


@pytest.mark.parametrize("backend", ["peft", "unsloth"])
def test_evaluating_before_training_changes_nothing(
    base, tmp_path, request, backend
):
    """The corruption that `keep_weights_packed_once` is there for."""
    if not has_the_trouble():
        pytest.skip("no AVX512-BF16 on this CPU, or a GPU: nothing repacks")
    if backend == "unsloth":
        told = request.getfixturevalue("with_unsloth")[1]
    else:
        told = around_an_evaluation(base, tmp_path, backend)
    assert furthest_apart(told["alone"], told["guarded"]) < 1e-4
    if told["unguarded"]:  # else it ended in an error
        assert furthest_apart(told["alone"], told["unguarded"]) > 0.01


def test_every_4_bit_layer_has_its_switch_off(base):
    model, _ = fresh(base)
    switches = [
        module.support_avx512bf16_for_cpu
        for module in model.modules()
        if hasattr(module, "support_avx512bf16_for_cpu")
    ]
    assert len(switches) == 14
    assert not any(switches)


# --- no kernel: 16 bit ------------------------------------------------------


def loads_on(patch, device, dtype):
    """A machine with another device, whose models lie in memory here."""
    from transformers import AutoModelForCausalLM

    load = AutoModelForCausalLM.from_pretrained

    def here(*args, device_map, **kwargs):
        assert device_map == device
        return load(*args, device_map={"": "cpu"}, **kwargs)

    patch.setattr(AutoModelForCausalLM, "from_pretrained", here)
    patch.setattr(machine, "pick_device", lambda: (device, dtype, ""))


def test_this_cpu_has_4_bit_kernels():
    import torch

    assert finetune.no_4bit("cpu", "float32") == ""
    with torch.inference_mode():
        assert finetune.no_4bit("cpu", "float32") == ""
    with torch.no_grad():
        assert finetune.no_4bit("cpu", "float32") == ""


@pytest.mark.parametrize("missing", ["package", "kernel", "device"])
def test_what_is_missing_is_found_by_trying(monkeypatch, missing):
    import bitsandbytes

    def broken(*args, **kwargs):
        raise NotImplementedError("no kernel for this\nlong story")

    if missing == "package":
        monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    elif missing == "kernel":
        monkeypatch.setattr(bitsandbytes, "matmul_4bit", broken)
    device = "mps" if missing == "device" else "cpu"
    reason = finetune.no_4bit(device, "float32")
    assert reason
    assert "\n" not in reason
    if missing == "kernel":
        assert reason == "NotImplementedError: no kernel for this"


@pytest.mark.parametrize(
    ("device", "stored"), [("mps", "bfloat16"), ("cpu", "float32")]
)
def test_without_a_kernel_lora_goes_on_a_base_of_16_bit(
    base, pairs, folders, monkeypatch, capsys, tmp_path, device, stored
):
    """16 bit on an Apple GPU, 32 on a CPU; said aloud, and in the card."""
    import torch

    with monkeypatch.context() as patch:
        loads_on(patch, device, "float32")
        patch.setitem(sys.modules, "bitsandbytes", None)
        model, tokenizer = finetune.load_in_4bit(base)
    said = [x for x in capsys.readouterr().out.splitlines() if "LoRA" in x]
    assert len(said) == 1
    assert f"LoRA, not QLoRA: the base stays in {stored}." in said[0]
    assert f"on this {device} (ModuleNotFoundError" in said[0]
    model = finetune.add_lora(model)
    assert finetune.stored_as(model) == stored
    frozen = {w.dtype for w in model.parameters() if not w.requires_grad}
    assert frozen == {getattr(torch, stored)}
    before = trained_weights(model)
    _, result = train(base, pairs, tmp_path, model=(model, tokenizer))
    assert furthest(before, trained_weights(model)) > 1e-3
    assert result.log["loss"].iloc[-1] < result.log["loss"].iloc[0] - 0.1
    assert finetune.stored_as(model) == stored


def test_with_kernels_nothing_is_said_and_the_card_names_nf4(
    base, folders, capsys
):
    finetune.load_in_4bit(base)
    assert "LoRA, not QLoRA" not in capsys.readouterr().out
    assert "frozen in nf4." in saved(base, folders)[1]


def test_a_base_published_in_4_bit_needs_the_kernels(
    base, monkeypatch, tmp_path
):
    model, tokenizer = finetune.load_in_4bit(base)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    from transformers.quantizers import quantizer_bnb_4bit

    monkeypatch.setattr(
        quantizer_bnb_4bit, "is_bitsandbytes_available", lambda: False
    )
    with pytest.raises(CourseError, match="requires bitsandbytes"):
        finetune.load_in_4bit(str(tmp_path))


# --- the optimizer ----------------------------------------------------------


def test_an_optimizer_that_has_no_kernel_is_replaced(monkeypatch):
    """bitsandbytes on Apple's GPUs: 4 bit, but no 8-bit AdamW."""
    import bitsandbytes

    assert machine.pick_optimizer("adamw_8bit")[0] == "adamw_8bit"
    assert machine.pick_optimizer("adamw_torch")[0] == "adamw_torch"

    def no_kernel(*_):
        raise NotImplementedError("no kernel for this device")

    monkeypatch.setattr(bitsandbytes.optim.AdamW8bit, "step", no_kernel)
    name, why = machine.pick_optimizer("adamw_8bit")
    assert name == "adamw_torch"
    assert "no 8-bit AdamW on cpu" in why and "no kernel for this" in why
