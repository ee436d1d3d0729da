"""`check`: every line from faked facts, and the facts of this machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llamaxr_utils import __main__
from llamaxr_utils.course import check, machine, machine_facts, needs
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.course.machine_facts import Facts

PINS = {"torch": "2.13.0", "numpy": "2.4.6", "trl": "1.14.2",
        "unsloth": "2026.10.9", "unsloth-zoo": "2026.10.9"}
T4, A100 = ("Tesla T4", 15.5), ("A100 40 GB", 42.0)
#: A machine on which profile paper runs.
GOOD = Facts(
    python=(3, 11, 7),
    packages=PINS,
    pinned=PINS,
    needed=("torch", "numpy", "trl"),
    gpu=A100,
    device="cuda",
    best_dtype="bfloat16",
    disk_gb=100.0,
    closed=(),
    java="17.0.15",
    base="hub",
    xrays="found",
    weights=True,
)
PAPER, CPU = needs.plan("paper"), needs.plan("cpu")


def lines(level, wanted=PAPER, **changes):
    found = check.judge(wanted, replace(GOOD, **changes))
    return [str(line) for line in found if line.level == level]


def test_a_machine_that_has_everything():
    assert lines("FAIL") == lines("NOTE") == []
    found = lines("OK")
    assert len(found) == 9
    assert all(line.startswith("[ OK ] ") for line in found)
    assert "2.4.6" not in " ".join(found)


@pytest.mark.parametrize(
    ("changes", "what", "do"),
    [
        ({"python": (3, 10, 12)}, "Python 3.10.12", "PYTHON=python3.11"),
        ({"python": (3, 11, 2)}, "exist for 3.11.5", "make setup"),
        ({"python": (3, 14, 0)}, "Python 3.14.0", "make setup"),
        ({"needed": ("torch", "peft")}, "Not installed: peft", "make setup"),
        ({"packages": {k: v for k, v in PINS.items() if k != "unsloth"}},
         "unsloth is not installed", 'BACKEND = "peft"'),
        ({"packages": {**PINS, "torchao": "0.10.0"}}, "torchao 0.10.0",
         "constraints.txt torchao"),
        ({"packages": {**PINS, "datasets": "4.0.0"}}, "datasets 4.0.0",
         "constraints.txt datasets"),
        ({"packages": {**PINS, "trl": "1.15.0"}, "device": "cpu"},
         "trl 1.15.0", "constraints.txt trl"),
        ({"gpu": None, "device": "cpu"}, "No NVIDIA GPU", "PROFILE=cpu"),
        ({"gpu": ("a GPU", 7.0)}, "7.0 GB free", "PROFILE=t4"),
        ({"disk_gb": 3.0}, "disk: 3.0 GB free", "LLAMAXR_RUNS"),
        ({"closed": ("runs/",)}, "runs/ takes no file", "LLAMAXR_RUNS"),
        ({"base": "the hub was not reached."}, "8B-bnb-4bit is not to be had",
         "LLAMAXR_MODELS"),
        ({"xrays": ""}, "No X-rays in data/", "fetch openi --all"),
        ({"weights": False}, "weights of densenet121-res224-all",
         "fetch densenet121-res224-all"),
    ],
)  # fmt: skip
def test_each_failure_says_what_and_what_to_do(changes, what, do):
    (line,) = lines("FAIL", **changes)
    assert line.startswith("[FAIL] ")
    assert what in line
    assert do in line.split("Do: ")[1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"packages": {**PINS, "torch": "2.11.0+cu128"}}, "torch 2.11.0"),
        ({"pinned": {}}, "No constraints.txt"),
        ({"java": None}, "METEOR 1.5 is left out"),
        ({"closed": ("data/",)}, "data/ is read-only"),
        ({"xrays": "archive"}, "will be unpacked"),
    ],
)
def test_what_the_run_stands_is_a_note(changes, says):
    assert lines("FAIL", **changes) == []
    (line,) = lines("NOTE", **changes)
    assert says in line


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
    monkeypatch, precision, device, best, dtype
):
    wanted = replace(CPU, precision=precision)
    failed = lines("FAIL", wanted, device=device, best_dtype=best)
    monkeypatch.setattr(machine, "pick_device", lambda: (device, best, ""))
    if dtype is None:
        assert "PRECISION" in failed[0] and "CHANGE" in failed[0]
        with pytest.raises(CourseError, match="PRECISION"):
            machine.compute_dtype(precision)
    else:
        assert failed == []
        assert machine.compute_dtype(precision) == (device, dtype)


def test_profile_cpu_asks_for_no_gpu_hub_or_xray():
    bare = dict(gpu=None, device="cpu", base="local", xrays="", disk_gb=2.0,
                packages={k: PINS[k] for k in GOOD.needed})
    assert lines("FAIL", CPU, **bare) == []


# --- GPU memory -------------------------------------------------------------


def test_the_shapes_are_those_of_the_published_models():
    """Parameters as their authors count them; the rest are norms."""
    counts = {"smollm2-135m": 134_515_008, "llama-3.2-1b": 1_235_814_400,
              "llama-3.1-8b": 8_030_261_248}
    for name, count in counts.items():
        shape = needs.SHAPES[name]
        norms = (2 * shape.layers + 1) * shape.width
        assert shape.linear + shape.embeddings + norms == count
    assert needs.SHAPES["llama-3.1-8b"].lora(16) == 41_943_040
    # The published 4-bit file has 5.70 GB.
    assert needs.base_gb(needs.SHAPES["llama-3.1-8b"]) == pytest.approx(
        5.70, abs=0.05
    )


def test_the_formula_by_hand():
    parts = needs.training_gb(
        needs.SHAPES["llama-3.1-8b"], 16, 8, 1024, "peft"
    )
    assert parts["adapter"] == pytest.approx(41_943_040 * 8 / 1e9)
    assert parts["optimizer"] == pytest.approx(41_943_040 * 2 / 1e9)
    assert parts["logits"] == pytest.approx(8192 * 128_256 * 12 / 1e9)
    assert parts["activations"] == pytest.approx(
        8192 * (2 * 32 * 4096 + 4 * (6 * 4096 + 2 * 1024 + 4 * 14336)) / 1e9
    )
    half = needs.training_gb(needs.SHAPES["llama-3.1-8b"], 16, 4, 1024, "peft")
    for part in ("activations", "logits"):
        assert half[part] == pytest.approx(parts[part] / 2)
    assert half["weights"] == parts["weights"]


def test_2_x_16_on_a_t4_keeps_32():
    peft = replace(PAPER, backend="peft")
    (line,) = lines("FAIL", peft, gpu=T4)
    assert "set BATCH_SIZE = 2 and ACCUMULATION = 16" in line
    assert "still sees 32 studies" in line
    fits = replace(peft, batch=2, accumulation=16)
    assert lines("FAIL", fits, gpu=T4) == []
    assert lines("FAIL", needs.plan("t4"), gpu=T4) == []


# --- the facts of a machine -------------------------------------------------


def test_look_at_this_machine_offline(folders, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    facts = machine_facts.look(PAPER)
    assert facts.packages["numpy"] and "torch" in facts.needed
    assert facts.pinned["trl"] == "1.14.2"
    assert facts.disk_gb > 0
    assert facts.closed == ()
    assert "huggingface.co was not reached" in facts.base
    assert (facts.xrays, facts.weights) == ("", False)
    assert not folders.exists()  # nothing was made


def test_the_hub_is_asked_for_a_header_and_its_answer_is_told(monkeypatch):
    from types import SimpleNamespace

    monkeypatch.delenv("HF_HUB_OFFLINE")
    asked = []

    def head(url, timeout, allow_redirects):
        asked.append(url)
        return SimpleNamespace(status_code=status)

    monkeypatch.setattr("requests.head", head)
    for status, says in ((200, "hub"), (401, "gated"), (404, "404")):
        assert says in machine_facts._ask_for("llama-3.1-8b")
    assert asked[0].endswith(
        "unsloth/Meta-Llama-3.1-8B-bnb-4bit/resolve/main/config.json"
    )
    assert len(asked) == 3


def test_a_local_copy_needs_no_hub(tmp_path, monkeypatch):
    (tmp_path / "Meta-Llama-3.1-8B-bnb-4bit").mkdir()
    monkeypatch.setenv("LLAMAXR_MODELS", str(tmp_path))
    assert machine_facts._ask_for("llama-3.1-8b") == "local"
    assert machine_facts._ask_for("small-llama") == "local"
    assert "HF_HUB_OFFLINE" in machine_facts._ask_for("llama-3.2-1b")


def test_xrays_and_weights_are_found_by_name(folders):
    data = folders.parent / "data"
    drawn = data / "phantoms" / "CXR1_1_IM-0001-3001.png"
    drawn.parent.mkdir(parents=True)
    drawn.touch()
    assert machine_facts._xrays() == ""
    (data / "NLMCXR_png.tgz").touch()
    assert machine_facts._xrays() == "archive"
    (data / "CXR1_1_IM-0001-3001.png").touch()
    assert machine_facts._xrays() == "found"
    (data / "weights").mkdir()
    (data / "weights" / "densenet121-res224-all.safetensors").touch()
    assert machine_facts._weights("densenet121-res224-all")
    assert not machine_facts._weights("densenet121-res224-nih")


def test_a_folder_that_takes_no_file(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError

    assert machine_facts._takes_a_file(tmp_path)
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert not machine_facts._takes_a_file(tmp_path)


# --- the command ------------------------------------------------------------


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


def test_an_unknown_profile():
    with pytest.raises(CourseError):
        needs.plan("papper")
