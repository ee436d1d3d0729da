"""Sweeps: the notebooks many times over, each time with other knobs.

A grid (YAML) names points: a point is a chain of notebooks with some knobs
changed. Chains that begin alike share those runs, so that one adapter is
trained once and decoded in many ways. Every run has a folder of its own, named
by all that it hangs on: what is finished is never made twice, and what was
killed goes on. In order, or on a Ray cluster with one disk for all."""

import io
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pandas as pd
import yaml

from ..course import artifacts, run, runner
from ..course.errors import CourseError, problem, refuse_unknown
from ..datasets import mesh
from ..evaluation import metrics
from ..evaluation.findings import label_report
from .grounding import GAP, all_swaps

#: What a run folder holds besides artifacts.
NO_INPUT = shutil.ignore_patterns("tables", "figures", "notebooks", "records",
                                  "checkpoints*", "*.html", ".*")


class Grid(NamedTuple):
    """What to run; the fields of its YAML file. See `figures/designs.yaml`."""

    name: str  #: of the file
    points: dict[str, dict[str, Any]]  #: name -> knob -> value
    seeds: Sequence[int] = (3407,)  #: each sets SEED in all the chain
    about: str = ""
    profile: str = "cpu"
    images: str = ""  #: or the profile's own
    first: str = "03"  #: notebooks of a chain; what comes before is shared
    last: str = "05"


class Node(NamedTuple):
    """One run of one notebook; `key` hashes all that it hangs on."""

    key: str
    parent: str  #: key of the run it continues; "" for the base run
    notebook: str
    profile: str
    images: str
    change: dict[str, Any]


def read_grid(path: str | Path) -> Grid:
    """The grid of a YAML file; CourseError if it can't be run."""
    try:
        content = yaml.safe_load(Path(path).read_text("utf-8"))
        grid = Grid(Path(path).stem, **content)
        first, last = (str(n).zfill(2) for n in (grid.first, grid.last))
        if first < "02":  # a chain goes on from a base run
            raise ValueError("first is 02 at least")
        seeds = [int(seed) for seed in grid.seeds]
        points = {str(k): {knob: _number(value) for knob, value in (
            v or {}).items()} for k, v in grid.points.items()}
    except (OSError, ValueError, TypeError, AttributeError,
            yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise problem("no grid", path=path, why=why) from None
    run.run_name(grid.profile, grid.images or None)
    known = {knob for notebook in runner.choose(first, last)
             for knob in run.knob_table(notebook)}
    for knob in {knob for change in points.values() for knob in change}:
        refuse_unknown("A knob", knob, sorted(known))
    return grid._replace(seeds=seeds, points=points, first=first, last=last,
                         images=grid.images or run.declared()[
                             "profiles"][grid.profile]["images"])


def _number(value: Any) -> Any:
    """2e-6 is a text to YAML."""
    with suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def chains(grid: Grid) -> dict[tuple[str, int], list[Node]]:
    """(point, seed) -> its runs, in order; equal runs are equal nodes."""
    base = run.runs_folder() / run.run_name(grid.profile, grid.images)
    start = [(artifacts.manifest(base, name) or {}).get("sha256")
             for name, spec in artifacts.ARTIFACTS.items()
             if spec.writer < grid.first]
    states = {notebook: runner.state_now(
        run.notebook_path(notebook), grid.profile, grid.images)
        for notebook in runner.choose(grid.first, grid.last)}
    result = {}
    for seed in grid.seeds:
        for point, change in grid.points.items():
            parent, chain, wanted = "", [], {**change, "SEED": seed}
            for notebook, state in states.items():
                known = run.knob_table(notebook)
                knobs = {k: v for k, v in wanted.items() if k in known}
                key = artifacts.digest([parent or start, state, knobs])
                chain.append(Node(key[:16], parent, notebook, grid.profile,
                                  grid.images, knobs))
                parent = key[:16]
            result[point, seed] = chain
    return result


# --- one run ----------------------------------------------------------------

def home(key: str = "") -> Path:
    return run.runs_folder() / "sweeps" / key


def run_node(node: Node) -> float:
    """Run a notebook in its folder, unless that is done; returns seconds. The
    folder begins with hard links to its parent's artifacts."""
    name, note = run.run_name(node.profile, node.images), home(node.key)
    if done := artifacts.read_json(note / "done.json", seconds=float):
        return done["seconds"]
    base = home(node.parent) if node.parent else run.runs_folder()
    folder, began = note / name, time.perf_counter()
    if not folder.is_dir():
        artifacts.write_whole(folder, lambda part: shutil.copytree(
            base / name, part, copy_function=_link, ignore=NO_INPUT))
    surroundings = {"LLAMAXR_RUNS": str(note.absolute())}
    with (patch.dict(os.environ, surroundings), runner.one_writer(folder),
          redirect_stdout(io.StringIO())):
        runner.execute(
            run.notebook_path(node.notebook),
            runner.executed_path(folder, node.notebook),
            {"PROFILE": node.profile, "IMAGES": node.images,
             "CHANGE": node.change})
    seconds = round(time.perf_counter() - began, 1)
    artifacts.write_json(note / "done.json", node._asdict() | {
        "seconds": seconds, "commit": commit()})
    return seconds


def _link(old: str, new: str) -> None:
    try:
        os.link(old, new)
    except OSError:  # a disk without links
        shutil.copy2(old, new)


# --- all runs ---------------------------------------------------------------

def sweep(path: str | Path, address: str = "") -> pd.DataFrame:
    """Run what is missing of a grid; returns its `rows`. If a run failed,
    CourseError with the first reason, after all others have ended.

    `address` "": one run after another, here. "local": a Ray cluster of this
    machine, a process a CPU core, or a GPU where there are any; "auto" or an
    address: a cluster that is there, whose machines see this environment,
    clone, runs and data under the same paths."""
    grid = read_grid(path)
    before = [n for n in run.NOTEBOOKS if n < grid.first]
    if run.IN_COURSE not in os.environ:
        runner.run_course(grid.profile, grid.images, last=before[-1])
    plan = chains(grid)
    nodes = {node.key: node for chain in plan.values() for node in chain}
    work = _on_ray(nodes, address) if address else _in_order(nodes)
    failed, there = [], set(rows(path).get("node", ()))
    for count, (key, outcome) in enumerate(work, 1):
        if isinstance(outcome, Exception):
            failed.append(outcome)
        print(f"[{count}/{len(nodes)}] {nodes[key].notebook} "
              f"{nodes[key].change}: {str(outcome).strip()}", flush=True)
        for (point, seed), chain in plan.items():
            if chain[-1].key == key not in there and outcome not in failed:
                _record(grid, point, seed, chain)
    if failed:
        raise problem("failed runs", failed=len(failed), of=len(nodes),
                      why=" ".join(str(failed[0]).split()))
    return rows(path)


def _in_order(nodes: dict[str, Node]) -> Iterator[tuple[str, Any]]:
    ended = {""}
    for key, node in nodes.items():
        if node.parent in ended:
            try:
                yield key, run_node(node)
                ended.add(key)
            except CourseError as error:
                yield key, error


def _on_ray(nodes: dict[str, Node],
            address: str) -> Iterator[tuple[str, Any]]:
    """The same as they end, on a cluster. A worker that dies is replaced,
    and its run goes on."""
    ray, gpus = connect(address)
    places = {"LLAMAXR_RUNS": str(run.runs_folder().absolute()),
              "LLAMAXR_DATA": str(run.data_folder().absolute())}
    where = run.project_folder()

    @ray.remote(num_cpus=1, num_gpus=gpus, max_retries=3)
    def task(node: Node, _parent: Any) -> float:
        os.chdir(where)
        with patch.dict(os.environ, places):
            return run_node(node)

    begun: dict[str, Any] = {}
    for key, node in nodes.items():
        begun[key] = task.remote(node, begun.get(node.parent))
    waiting = {reference: key for key, reference in begun.items()}
    while waiting:
        (ready, *_), _ = ray.wait(list(waiting))
        key = waiting.pop(ready)
        try:
            yield key, ray.get(ready)
        except ray.exceptions.RayError as error:
            yield key, getattr(error, "cause", error)


def connect(address: str) -> tuple[Any, float]:
    """Ray on a cluster, and the GPUs of a task; its usage report is off."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray

        if not ray.is_initialized():
            new: Any = {"include_dashboard": False}
            ray.init(address, log_to_driver=False,
                     **(new if address == "local" else {}))
    except Exception as error:
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise problem("no cluster", address=address, why=why) from error
    return ray, float(ray.cluster_resources().get("GPU", 0) > 0)


# --- rows -------------------------------------------------------------------

def _record(grid: Grid, point: str, seed: int, chain: Sequence[Node]) -> None:
    """Keep a finished point's row as JSON, and show it."""
    key = chain[-1].key
    folder = home(key) / run.run_name(grid.profile, grid.images)
    notes = [artifacts.read_json(home(node.key) / "done.json") or {}
             for node in chain]
    row = {"point": point, "seed": seed, "run": folder.name, "node": key,
           "commit": " ".join({note["commit"]: "" for note in notes}),
           "seconds": sum(note["seconds"] for note in notes),
           **measure(folder)}
    artifacts.write_json(_row_file(grid, point, seed),
                         row | {"change": grid.points[point]})
    shown = (f"{name} {value:.3f}" for name, value in row.items()
             if isinstance(value, float))
    print(f"  {point}, seed {seed}:", *shown, flush=True)


def _row_file(grid: Grid, point: str, seed: int) -> Path:
    return home(grid.name) / f"{artifacts.digest([point, seed])[:16]}.json"


def rows(path: str | Path) -> pd.DataFrame:
    """What is finished of a grid, a row a point and seed: `measure`, and
    ``commit``, the clone's state when its notebooks ran."""
    grid, found = read_grid(path), []
    for (point, seed), chain in chains(grid).items():
        row = artifacts.read_json(_row_file(grid, point, seed)) or {}
        if row.get("node") == chain[-1].key:  # of these very knobs
            found.append(row)
    return pd.DataFrame(found)


def commit() -> str:
    """The clone's, with "-dirty" where files differ from it."""
    with suppress(OSError):
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude", "*"],
            cwd=run.project_folder(), capture_output=True, text=True,
            check=False).stdout.strip()
    return ""


def measure(folder: Path) -> dict[str, Any]:
    """`numbers` of a run's reports, and what its adapter is."""
    if artifacts.stale_because(folder, "generations"):
        return {}
    own = artifacts.load(folder, "generations").query(
        "model == 'tuned' and scores_from == 'own'")
    log = artifacts.load(folder, "training_log").query("split == 'val'")
    adapter = artifacts.manifest(folder, "adapter") or {}
    return {"adapter": adapter["sha256"][:12], "val_loss": log["loss"].min(),
            **numbers(folder, own["study_id"], own["generated"])}


def numbers(folder: Path, ids: Sequence[str],
            texts: Sequence[str]) -> dict[str, float]:
    """Findings F1 and its loss under another's scores (`all_swaps`); R2Gen's
    BLEU-4, ROUGE-L and CIDEr; ``distinct`` reports; the share of abnormal
    reports among normal studies, and among abnormal ones that have one of
    the 18 conditions."""
    studies = artifacts.load(folder, "studies").set_index("study_id").loc[ids]
    truth, texts = list(studies["findings"]), list(texts)
    tests = {row["measure"]: row for row in all_swaps(truth, texts)}
    scored = metrics.score_reports(truth, texts, "r2gen", meteor=False)
    called = np.array(
        [label_report(t).get("No Finding") == "absent" for t in texts])
    has = np.array([any(mesh.labels(m).values()) for m in studies["mesh"]])
    normal = studies["status"].eq("normal").to_numpy()
    return {
        "n": len(truth), "f1": tests["findings F1, own"]["value"],
        "gap": tests[GAP]["value"], "gap_low": tests[GAP]["low"],
        **{name: scored[name] for name in ("BLEU-4", "ROUGE-L", "CIDEr")},
        "distinct": len(set(texts)), "normal_called": called[normal].mean(),
        "abnormal_called": called[~normal & has].mean()}


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """A row a point and run: its numbers' means over seeds, and Student's
    95 % interval of the gap, ``gap_from`` to ``gap_to`` (NaN of one seed)."""
    from scipy.stats import t

    groups = table.groupby(["point", "run"], sort=False)
    means = groups.mean(numeric_only=True).drop(columns="seed")
    n = groups.size()
    half = t.ppf(0.975, (n - 1).clip(lower=1)) * groups["gap"].std() / n**0.5
    means = means.assign(seeds=n, gap_from=means["gap"] - half,
                         gap_to=means["gap"] + half)
    return means.sort_values("gap", ascending=False).reset_index()
