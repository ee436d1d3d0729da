"""`check`: each line on a faked machine, and this machine as it is."""

import re
from types import SimpleNamespace

import pytest

from llamaxr_utils import __main__
from llamaxr_utils.course import machine
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.studies import check


@pytest.fixture
def card(monkeypatch):
    """A function that puts a GPU of this dtype and free GB into the machine;
    an A100 before it is called."""

    def put(device, best, free=40.0):
        monkeypatch.setattr(
            machine, "pick_device", lambda: (device, best, f"a {device}"))
        monkeypatch.setattr(
            "torch.cuda.mem_get_info", lambda: (free * 1e9, 80e9))

    put("cuda", "bfloat16")
    return put


def test_a_gpu_and_what_was_measured(card):
    line = check.gpu("llama-3.1-8b", "bf16")
    assert "[ OK ]" in line and "40.0 GB free" in line and "17.4 GB" in line
    card("cuda", "float16", 15.0)
    assert "[FAIL]" in check.gpu("llama-3.1-8b", "fp16")
    assert "was not measured" in check.gpu("llama-3.2-1b", "fp16")
    card("cpu", "float32")
    assert "[FAIL] an NVIDIA GPU" in check.gpu("llama-3.1-8b", "fp32")


# A T4 has no bfloat16, an A100 has both; a CPU steps in no fp16.
@pytest.mark.parametrize(("precision", "device", "best", "dtype"), [
    ("fp16", "cuda", "float16", "float16"),
    ("bf16", "cuda", "float16", None), ("fp16", "cuda", "bfloat16", "float16"),
    ("bf16", "cuda", "bfloat16", "bfloat16"),
    ("fp32", "cuda", "bfloat16", "float32"),
    ("fp16", "cpu", "float32", None),
    ("bf16", "cpu", "float32", "float32")])
def test_check_and_load_agree_on_what_can_start(
        card, precision, device, best, dtype):
    card(device, best)
    line = check.gpu("small-llama", precision)
    if dtype:
        assert "[ OK ]" in line
        assert machine.compute_dtype(precision) == (device, dtype)
    else:
        assert "[FAIL] PRECISION" in line and "CHANGE" in line
        with pytest.raises(CourseError, match="PRECISION"):
            machine.compute_dtype(precision)


def test_the_hub_is_asked_for_a_header_and_its_answer_is_told(
        monkeypatch, data):
    assert "[FAIL]" in check.base_model("llama-3.2-1b")  # no network
    asked = []

    def head(url, timeout, allow_redirects):
        asked.append(url)
        return SimpleNamespace(status_code=status)

    monkeypatch.setattr("requests.head", head)
    for status, says in ((200, "[ OK ]"), (401, "401")):
        assert says in check.base_model("llama-3.1-8b")
    name = "Meta-Llama-3.1-8B-bnb-4bit"
    assert asked[0].endswith(f"unsloth/{name}/resolve/main/config.json")
    (data / "models" / name).mkdir(parents=True)
    for base in ("llama-3.1-8b", "small-llama"):
        assert f"[ OK ] {base} is here" in check.base_model(base)
    assert len(asked) == 2


def test_xrays_and_weights_are_looked_for_by_name(data):
    (data / "phantoms").mkdir()
    (data / "phantoms" / "CXR1_1_IM-0001-3001.png").touch()
    assert not check.xrays_here()
    (data / "CXR1_1_IM-0001-3001.png").touch()
    assert check.xrays_here()
    (data / "weights").mkdir()
    assert not check.weights_here("densenet121-res224-all")
    (data / "weights" / "densenet121-res224-all.safetensors").touch()
    assert check.weights_here("densenet121-res224-all")


def test_the_command_and_its_exit_code(folders, capsys, monkeypatch):
    assert __main__.main(["check"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("Ready to run.")
    assert __main__.main(["check", "--profile", "paper"]) == 1
    assert "[FAIL] X-rays in data/" in capsys.readouterr().out
    assert __main__.main(["check", "--profile", "t5"]) == 1
    assert "no profile 't5'" in capsys.readouterr().err
    assert not folders.exists()  # nothing was made
    usage, here = check.shutil.disk_usage("/"), check.find_spec
    monkeypatch.setattr(check.shutil, "disk_usage",
                        lambda _: usage._replace(free=3e9))
    monkeypatch.setattr(check, "find_spec", lambda n: n != "peft" and here(n))
    monkeypatch.setattr(check.os, "access", lambda *_: False)
    assert __main__.main(["check"]) == 1
    shown = capsys.readouterr().out
    for fact in ("[FAIL] runs/ takes files", "[ OK ] disk: 3.0 GB free"):
        assert fact in shown
    assert re.search(r"\[FAIL\].*peft.*setup", shown)
    for base, xrays in (("llama-3.1-8b", True), ("small-llama", False)):
        assert "[FAIL] disk: 3.0 GB free" in check.disk(base, xrays)
