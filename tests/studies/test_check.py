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


@pytest.mark.parametrize(
    ("version", "level"),
    [((3, 11, 7), " OK "), ((3, 13, 0), " OK "), ((3, 10, 12), "FAIL"),
     ((3, 11, 2), "FAIL"), ((3, 14, 0), "FAIL")],
)
def test_python(version, level):
    (line,) = check.python(version)
    assert line.startswith(f"[{level}] Python 3.")


def test_packages_and_traps(card):
    card("cpu", "float32")
    good = check.installed()
    assert [line[:6] for line in check.packages(good, False)] == ["[ OK ]"]
    (line,) = check.packages({**good, "torch": "2.11.0+cu128"}, False)
    assert line.startswith("[NOTE]") and "torch 2.11.0+cu128, not" in line
    rest = {name: good[name] for name in good if name != "peft"}
    (line,) = check.packages(rest, False)
    assert "[FAIL] Not installed: peft." in line and "make setup" in line
    for name, bad in (("torchao", "0.10.0"), ("trl", "1.15.0")):
        found = {n: v for n, v in good.items() if n != "triton"}
        lines = "".join(check.packages({**found, name: bad}, False))
        assert f"[FAIL] {name} {bad}" in lines
    lines = "".join(check.packages({**good, "datasets": "4.0.0"}, True))
    assert "[FAIL] datasets 4.0.0" in lines


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
    (line,) = check.gpu("small-llama", "fp32")
    assert "[ OK ] small-llama needs no GPU" in line


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
    assert "[ OK ]" in next(check.disk("small-llama", "phantom"))
    (line,) = check.disk("llama-3.1-8b", "real")
    assert "[FAIL] disk: 3.0 GB free" in line and "LLAMAXR_RUNS" in line
    assert "[ OK ]" in next(check.folders())
    monkeypatch.setattr(check, "takes_a_file", lambda _: False)
    assert "[FAIL] runs/ takes no file" in next(check.folders())


def test_the_hub_is_asked_for_a_header_and_its_answer_is_told(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    asked = []

    def head(url, timeout, allow_redirects):
        asked.append(url)
        return SimpleNamespace(status_code=status)

    monkeypatch.setattr("requests.head", head)
    for status, says in ((200, "hub"), (401, "gated"), (404, "404")):
        assert says in check.origin("llama-3.1-8b")
    assert asked[0].endswith(
        "unsloth/Meta-Llama-3.1-8B-bnb-4bit/resolve/main/config.json"
    )


def test_a_local_copy_needs_no_hub(tmp_path, monkeypatch):
    (tmp_path / "Meta-Llama-3.1-8B-bnb-4bit").mkdir()
    monkeypatch.setenv("LLAMAXR_MODELS", str(tmp_path))
    assert check.origin("llama-3.1-8b") == "local"
    assert check.origin("small-llama") == "local"
    assert "HF_HUB_OFFLINE" in check.origin("llama-3.2-1b")


def test_xrays_and_weights_are_found_by_name(folders):
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
    out = capsys.readouterr().out
    assert "[FAIL] No X-rays in data/" in out
    assert out.rstrip().endswith("to do.")
    assert __main__.main(["check", "--profile", "t5"]) == 1
    assert "no profile 't5'" in capsys.readouterr().err
    assert not folders.exists()  # nothing was made
