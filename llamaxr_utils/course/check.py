"""Before a run: does this machine have what a profile asks for?

``python -m llamaxr_utils check --profile paper`` prints one line a fact,
``[ OK ]``, ``[NOTE]`` or ``[FAIL]`` with what, why and do this. It judges
facts that `machine_facts` gathered; nothing is installed or changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..datasets import downloads
from ..llm import models
from . import machine
from .machine_facts import Facts, look
from .needs import SHAPES, SHARE, Plan, base_gb, plan, smaller, training_gb

RESULTS = 1.0  # GB that a run writes, about
#: soupsieve, which Jupyter brings, asks for 3.11.5 (dry runs).
PYTHONS = (3, 11, 5), (3, 14)


class Line(NamedTuple):
    """One fact, judged: ``OK``, ``FAIL`` (the run would stop) or ``NOTE``."""

    level: str
    what: str
    why: str = ""
    do: str = ""

    def __str__(self) -> str:
        words = " ".join(filter(None, (self.what, self.why, self.do)))
        return f"[{self.level:^4}] {words}"


# --- the judgement ----------------------------------------------------------


def judge(wanted: Plan, facts: Facts) -> list[Line]:
    """One `Line` a fact, in the order in which a run would meet them."""
    rules = (python, packages, traps, memory, precision, disk, folders) + (
        java, base_model, xrays, weights
    )  # fmt: skip
    return [line for rule in rules for line in rule(wanted, facts)]


def python(_: Plan, facts: Facts) -> Iterator[Line]:
    version = ".".join(map(str, facts.python))
    if PYTHONS[0] <= facts.python < PYTHONS[1]:
        yield Line("OK", f"Python {version}")
    else:
        yield Line(
            "FAIL",
            f"Python {version}.",
            "The pinned versions exist for 3.11.5 to 3.13.",
            "Do: make setup PYTHON=python3.11",
        )


def packages(wanted: Plan, facts: Facts) -> Iterator[Line]:
    if not facts.pinned:
        yield Line("NOTE", "No constraints.txt: versions are not compared.")
        return
    unsloth = ("unsloth", "unsloth-zoo") if wanted.backend == "unsloth" else ()
    missing = [n for n in facts.needed if n not in facts.packages]
    if missing:
        yield Line(
            "FAIL",
            f"Not installed: {', '.join(missing)}.",
            "The notebooks import them.",
            "Do: make setup (on Colab: run the setup cell)",
        )
    if any(name not in facts.packages for name in unsloth):
        yield Line(
            "FAIL",
            "unsloth is not installed.",
            f"Profile {wanted.profile} trains with it.",
            "Do: pip install --no-deps -c constraints.txt unsloth "
            'unsloth-zoo, or set BACKEND = "peft"',
        )
    there = [n for n in (*facts.needed, *unsloth) if n in facts.packages]
    other = [
        f"{n} {facts.packages[n]}, not {facts.pinned[n]}"
        for n in there
        if facts.packages[n].split("+")[0] != facts.pinned.get(n)
    ]
    if other:
        yield Line(
            "NOTE",
            f"Other versions than in constraints.txt: {'; '.join(other)}.",
            "They were not run together; Colab keeps its torch and numerics.",
        )
    elif not missing:
        yield Line("OK", f"{len(there)} packages as in constraints.txt")


def traps(wanted: Plan, facts: Facts) -> Iterator[Line]:
    """Sets that are known to break, each met once."""
    from packaging.specifiers import SpecifierSet

    unsloth = wanted.backend == "unsloth"
    no_triton = facts.device == "cpu" and "triton" not in facts.packages
    known = (
        ("torchao", "<0.16", True, "peft from 0.19 on refuses it."),
        ("datasets", "==4.0.*", unsloth, "unsloth excludes it."),
        ("trl", ">=1.15", no_triton, "on a CPU it stops in the first step."),
    )
    for name, bad, applies, why in known:
        found = facts.packages.get(name)
        if applies and found and found in SpecifierSet(bad):
            do = f"Do: pip install --no-deps -c constraints.txt {name}"
            yield Line("FAIL", f"{name} {found}:", why, do)


def memory(wanted: Plan, facts: Facts) -> Iterator[Line]:
    shape = SHAPES.get(wanted.base)
    if not wanted.needs_gpu:
        device = facts.gpu[0] if facts.gpu else facts.device
        yield Line("OK", f"{wanted.base} needs no GPU; here: {device}")
        return
    if facts.gpu is None:
        yield Line(
            "FAIL",
            f"No NVIDIA GPU was found ({facts.device}).",
            f"{wanted.base} in 4 bit is trained on one.",
            "Do: on Colab, Runtime > Change runtime type; or PROFILE=cpu",
        )
        return
    if shape is None:
        yield Line("NOTE", f"{wanted.base}: its shape is not known to check.")
        return
    name, free = facts.gpu
    size = (wanted.rank, wanted.batch, wanted.length, wanted.backend)
    parts = training_gb(shape, *size)
    needed = sum(parts.values())
    words = ", ".join(f"{k} {v:.1f}" for k, v in parts.items() if v)
    said = (
        f"{name}: {free:.1f} GB free, about {needed:.1f} GB needed for "
        f"batch {wanted.batch} x {wanted.length} tokens ({words})"
    )
    if needed <= SHARE * free:
        yield Line("OK", said)
        return
    yield Line("FAIL", f"{said}.", "", f"Do: {smaller(wanted, free)}")


def precision(wanted: Plan, facts: Facts) -> Iterator[Line]:
    """Only where it fails: on the right device there is nothing to say."""
    if wanted.needs_gpu and facts.device != "cuda":
        return  # said by `memory`
    problem = machine.cannot_start(
        wanted.precision, facts.device, facts.best_dtype
    )
    if problem:
        yield Line("FAIL", *problem[:2], f"Do: {problem[2]}")


def disk(wanted: Plan, facts: Facts) -> Iterator[Line]:
    """Results, three checkpoints, and what is still to be fetched."""
    needed, shape = RESULTS, SHAPES.get(wanted.base)
    if shape and facts.base != "local":
        needed += base_gb(shape)
    if shape:
        needed += 3 * 6 * shape.lora(wanted.rank) / 1e9
    if wanted.images == "real" and facts.xrays != "found":
        needed += 2 * downloads.ARCHIVE_BYTES / 1e9  # packed and unpacked
    said = f"disk: {facts.disk_gb:.1f} GB free, about {needed:.1f} GB needed"
    if facts.disk_gb >= needed:
        yield Line("OK", said)
    else:
        yield Line(
            "FAIL",
            f"{said}.",
            "",
            "Do: free some, or move the folders with LLAMAXR_RUNS, "
            "LLAMAXR_DATA and HF_HOME",
        )


def folders(_: Plan, facts: Facts) -> Iterator[Line]:
    if "runs/" in facts.closed:
        yield Line(
            "FAIL",
            "runs/ takes no file.",
            "Every notebook writes its results there.",
            "Do: set LLAMAXR_RUNS to a folder of yours",
        )
    if "data/" in facts.closed:
        yield Line("NOTE", "data/ is read-only: caches go to runs/cache.")
    if not facts.closed:
        yield Line("OK", "runs/ and data/ can be written")


def java(_: Plan, facts: Facts) -> Iterator[Line]:
    if facts.java:
        yield Line("OK", f"Java {facts.java}")
    else:
        yield Line("NOTE", "No Java: METEOR 1.5 is left out, nothing else.")


def base_model(wanted: Plan, facts: Facts) -> Iterator[Line]:
    source = models.base(wanted.base).source
    if facts.base == "local":
        made = models.made_here(wanted.base)
        where = "is made by the run" if made else "is on this machine"
        yield Line("OK", f"{wanted.base} {where}")
    elif facts.base == "hub":
        yield Line("OK", f"{source} can be fetched, no login asked")
    else:
        yield Line(
            "FAIL",
            f"{source} is not to be had.",
            facts.base,
            "Do: connect, or put a copy into a folder and set LLAMAXR_MODELS "
            "to its parent; PROFILE=cpu needs none",
        )


def xrays(wanted: Plan, facts: Facts) -> Iterator[Line]:
    if wanted.images == "phantom":
        yield Line("OK", "images are drawn; no X-ray is needed")
    elif facts.xrays == "found":
        yield Line("OK", "X-rays found")
    elif facts.xrays == "archive":
        yield Line("NOTE", "An archive in data/ will be unpacked and read.")
    else:
        yield Line(
            "FAIL",
            "No X-rays in data/.",
            f"Profile {wanted.profile} reads IU X-ray images.",
            "Do: python -m llamaxr_utils fetch openi --all (1.4 GB), or "
            "IMAGES=phantom",
        )


def weights(wanted: Plan, facts: Facts) -> Iterator[Line]:
    if facts.weights:
        yield Line("OK", f"backbone {wanted.backbone}")
    else:
        yield Line(
            "FAIL",
            f"The weights of {wanted.backbone} are not here.",
            "They are published by others and not part of the kit.",
            f"Do: python -m llamaxr_utils fetch {wanted.backbone}",
        )


def run_check(profile: str = "cpu", images: str | None = None) -> bool:
    """Look, judge, print; True if nothing failed."""
    wanted = plan(profile, images)
    facts = look(wanted)
    print(f"profile {profile} · {wanted.images} images")
    print(machine.platform_line())
    lines = judge(wanted, facts)
    for line in lines:
        print(line)
    failed = sum(line.level == "FAIL" for line in lines)
    print(f"{failed} to do." if failed else "Ready to run.")
    return not failed
