"""`check`: each line on a faked machine, and this machine as it is."""

from __future__ import annotations

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
        monkeypatch.setattr(check, "free_gpu_gb", lambda: free)

    put("cuda", "bfloat16")
    return put


def test_packages_and_traps(card):
    card("cpu", "float32")
    good = check.installed()
    (line,) = check.packages(good, False)
    assert line.startswith("[ OK ]")
    (line,) = check.packages({**good, "torch": "2.11.0+cu128"}, False)
    assert line.startswith("[NOTE]") and "torch 2.11.0+cu128, not" in line
    rest = {name: good[name] for name in good if name != "peft"}
    (line,) = check.packages(rest, False)
    assert "[FAIL] Not installed: peft." in line and "make setup" in line
    plain = {name: good[name] for name in good if name != "triton"}
    for name, bad in (("torchao", "0.10.0"), ("trl", "1.15.0"),
                      ("datasets", "4.0.0")):  # fmt: skip
        unsloth = name == "datasets"
        lines = "".join(check.packages({**plain, name: bad}, unsloth))
        assert f"[FAIL] {name} {bad}" in lines


def test_a_gpu_and_what_was_measured(card):
    (line,) = check.gpu("llama-3.1-8b", "bf16")
    assert "[ OK ]" in line and "40.0 GB free" in line and "17.4 GB" in line
    card("cuda", "float16", 15.0)
    (line,) = check.gpu("llama-3.1-8b", "fp16")
    assert "[FAIL]" in line and "PROFILE=t4" in line
    (line,) = check.gpu("llama-3.2-1b", "fp16")
    assert "was not measured" in line
    card("cpu", "float32")
    (line,) = check.gpu("llama-3.1-8b", "fp32")
    assert "[FAIL] No NVIDIA GPU" in line and "PROFILE=cpu" in line


#: A T4 has no bfloat16, an A100 has both; a CPU steps in no fp16.
@pytest.mark.parametrize(
    ("precision", "device", "best", "dtype"),
    [
        ("fp16", "cuda", "float16", "float16"),
        ("bf16", "cuda", "float16", None),
        ("fp16", "cuda", "bfloat16", "float16"),
        ("bf16", "cuda", "bfloat16", "bfloat16"),
        ("fp32", "cuda", "bfloat16", "float32"),
        ("fp16", "cpu", "float32", None),
        ("bf16", "cpu", "float32", "float32"),
    ],
)
def test_check_and_load_agree_on_what_can_start(
    card, precision, device, best, dtype
):
    card(device, best)
    failed = [line for line in check.gpu("small-llama", precision)
              if "[FAIL]" in line]
    if dtype is None:
        assert "PRECISION" in failed[0] and "CHANGE" in failed[0]
        with pytest.raises(CourseError, match="PRECISION"):
            machine.compute_dtype(precision)
    else:
        assert failed == []
        assert machine.compute_dtype(precision) == (device, dtype)


def test_disk_and_folders(folders, monkeypatch):
    usage = check.shutil.disk_usage("/")._replace(free=3e9)
    monkeypatch.setattr(check.shutil, "disk_usage", lambda _: usage)
    (line,) = check.disk("small-llama", "phantom")
    assert "[ OK ]" in line
    (line,) = check.disk("llama-3.1-8b", "real")
    assert "[FAIL] disk: 3.0 GB free" in line and "LLAMAXR_RUNS" in line
    monkeypatch.setattr(check.os, "access", lambda *_: False)
    lines = list(check.disk("small-llama", "phantom"))
    assert "[FAIL] runs/ takes no file" in lines[1]


def test_the_hub_is_asked_for_a_header_and_its_answer_is_told(
    monkeypatch, tmp_path
):
    assert "HF_HUB_OFFLINE" in check.origin("llama-3.2-1b")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    asked = []

    def head(url, timeout, allow_redirects):
        asked.append(url)
        return SimpleNamespace(status_code=status)

    monkeypatch.setattr("requests.head", head)
    for status, says in ((200, "hub"), (401, "gated"), (404, "404")):
        assert says in check.origin("llama-3.1-8b")
    name = "Meta-Llama-3.1-8B-bnb-4bit"
    assert asked[0].endswith(f"unsloth/{name}/resolve/main/config.json")
    (tmp_path / name).mkdir()
    monkeypatch.setenv("LLAMAXR_MODELS", str(tmp_path))
    assert check.origin("llama-3.1-8b") == "local"
    assert check.origin("small-llama") == "local"
    assert len(asked) == 3


def test_xrays_and_weights_are_looked_for_by_name(folders):
    data = folders.parent / "data"
    drawn = data / "phantoms" / "CXR1_1_IM-0001-3001.png"
    drawn.parent.mkdir(parents=True)
    drawn.touch()
    assert "[FAIL] No X-rays" in next(check.xrays("real"))
    (data / "CXR1_1_IM-0001-3001.png").touch()
    assert "[ OK ]" in next(check.xrays("real"))
    (data / "weights").mkdir()
    (data / "weights" / "densenet121-res224-all.safetensors").touch()
    assert "[ OK ]" in next(check.weights("densenet121-res224-all"))
    assert "[FAIL]" in next(check.weights("densenet121-res224-nih"))


def test_the_command_and_its_exit_code(folders, capsys):
    assert __main__.main(["check"]) == 0
    out = capsys.readouterr().out
    assert "profile cpu · phantom images" in out
    assert out.rstrip().endswith("Ready to run.")
    assert __main__.main(["check", "--profile", "paper"]) == 1
    assert "[FAIL] No X-rays in data/" in capsys.readouterr().out
    assert __main__.main(["check", "--profile", "t5"]) == 1
    assert "no profile 't5'" in capsys.readouterr().err
    assert not folders.exists()  # nothing was made
