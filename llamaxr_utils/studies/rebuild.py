"""Every table and figure of the paper beside what the runs on disk give.

From the registry (``figures/README.md``), the records of finished notebooks
and their tables and figures; only counts are computed.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..course import artifacts, plots, run
from ..course.run import NOTEBOOKS, Run
from ..datasets.conditions import NATIVE_ORDER
from ..datasets.reports import load_image_ids, load_studies
from ..evaluation.cases import PAGES
from ..llm.models import LLAMA_8B
from ..vision import features
from ..vision.backbones import RELEASED
from . import audit

TRAINABLE = 41_943_040  #: parameters, by the paper's section 3.5
#: Llama 3.1 8B (its config.json, arXiv 2407.21783).
LAYERS, WIDTH, VOCABULARY = 32, 4096, 128_256
NUMBERS = ["paper", "computed here", "difference"]
#: An item's number beside the paper's, without the difference.
Row = tuple[str, str, float | None, float | None, str, str, str]


def lora_parameters(rank: int) -> int:
    """Trainable parameters of LoRA on the seven linear layers of a block of
    Llama 3.1 8B: rank x (inputs + outputs) each."""
    return LAYERS * rank * sum(a + b for a, b in LLAMA_8B.values())


# --- the registry, and what is on disk --------------------------------------

def registry() -> pd.DataFrame:
    """The table in ``figures/README.md``, one row a paper item (figure-1):
    `committed` is a file in figures/, or ""."""
    text = (run.project_folder() / "figures" / "README.md").read_text("utf-8")
    lines = re.findall(r"^\| ((?:Figure|Table) \d.+) \|$", text, re.MULTILINE)
    table = pd.DataFrame(
        [[cell.strip("`–") for cell in line.split(" | ")] for line in lines],
        columns=["title", "notebook", "tag", "file", "committed", "status"])
    table.insert(0, "item", table["tag"].str.removeprefix("paper:"))
    return table


def images_of() -> dict[str, str]:
    """"phantom" or "real" for the name of every run folder there can be."""
    return {run.run_name(profile, images): images
            for profile in run.declared()["profiles"]
            for images in run.IMAGE_SOURCES}


def _command(name: str, part: str = "") -> str:
    return f"make course{part}{artifacts.run_options(Path(name))}"


def runs_on_disk() -> pd.DataFrame:
    """A row a run folder, then one for each profile that has none: ``run``,
    ``images``, ``finished`` and ``missing`` (numbers of notebooks 01 to 10),
    ``do`` (the command for what is missing)."""
    home, images, rows = run.runs_folder(), images_of(), []
    there = sorted(name for name in images if (home / name).is_dir())
    for name in dict.fromkeys([*there, *run.declared()["profiles"]]):
        done = {n[:2]: run.read_record(home / name, n) for n in NOTEBOOKS[:-1]}
        finished = [number for number, record in done.items() if record]
        missing = [number for number, record in done.items() if not record]
        do = _command(name) if missing else ""
        if finished and missing:  # The runner skips what is up to date.
            do = _command(name, f" FROM={missing[0]} TO={missing[-1]}")
        rows.append((name, images[name], " ".join(finished),
                     " ".join(missing), do))
    return pd.DataFrame(
        rows, columns=["run", "images", "finished", "missing", "do"])


def outputs(name: str) -> Iterator[tuple[str, Path, bool]]:
    """Tables and figures of a run's finished notebooks, in order: notebook,
    file, whether it is still the one that the notebook's record describes."""
    folder = run.runs_folder() / name
    for notebook in NOTEBOOKS[:-1]:
        record = run.read_record(folder, notebook) or {"outputs": {}}
        for file, recorded in record["outputs"].items():
            path = folder / file
            if path.suffix in (".csv", ".md", ".png") and path.is_file():
                yield notebook, path, artifacts.sha256(path) == recorded


# --- beside the paper -------------------------------------------------------

def _exact(item: str, what: str, paper: float | None, value: float, why: str,
           where: str, within: float = 0) -> Row:  # paper None: against 0
    word = "reproduced" if abs(value - (paper or 0)) <= within else "differs"
    return item, what, paper, value, word, why, where


def _counted() -> Iterator[Row]:
    """What can be counted or multiplied, whatever was run."""
    for item, what, paper, value, where in (
        ("section-3.3", "reports", 3955, len(load_studies()), "the reports"),
        ("section-3.3", "images", 7470, len(load_image_ids()), "the reports"),
        ("section-3.5", "trainable parameters", TRAINABLE, lora_parameters(16),
         "Llama 3.1 8B, rank 16 on seven layers a block"),
    ):
        yield _exact(item, what, paper, value, "counted, exact", where)
    quoted = audit.quoted_rows().set_index("system")
    claim, rest = quoted.loc["LLaMA-XR"], quoted.drop(index="LLaMA-XR")
    why = "right as a division, but of two protocols, llamaxr and r2gen"
    for metric, printed in (("ROUGE-L", 4.34), ("METEOR", 54.13)):
        gain = 100 * (claim[metric] / rest[metric].max() - 1)
        yield ("table-3", f"gain in {metric}, %", printed, gain,
               "not comparable", why, "the paper's rows")


def _measured(name: str, split: str | None) -> Iterator[Row]:
    """The paper's own row of Table 3 and its parameters, beside a run's."""
    folder = run.runs_folder() / name
    record = artifacts.manifest(folder, "prompts") or {"parameters": {}}
    base = record["parameters"].get("BASE", "")
    parts = [f"{images_of()[name]} images", *filter(None, [base])]
    source = f"{name} ({', '.join(parts)})"
    summary = pd.DataFrame(columns=["system", "protocol", "metric", "value",
                                    "note"])
    if not artifacts.stale_because(folder, "summary"):
        summary = artifacts.load(folder, "summary")
    compared = audit.compare_with_paper(
        summary, paper_split=split, command=_command(name, " TO=06"))
    for metric, *_, paper, value, _, word, why in compared.to_numpy():
        yield "table-3", f"LLaMA-XR: {metric}", paper, value, word, why, source
    for _, path, same in outputs(name):
        if base and same and path.name == "training.csv":
            facts = pd.read_csv(path, index_col="fact").iloc[:, 0]
            count = int(facts["trainable parameters"].replace(",", ""))
            row = _exact("section-3.5", "trainable parameters", TRAINABLE,
                         count, "counted in the model", source)
            yield row if base == "llama-3.1-8b" else (
                *row[:4], "not comparable", f"the base is {base}", source)


def _golden(names: list[str]) -> Row:
    """The 36 scores printed in Figure 4, those of study CXR24."""
    item, what = "figure-4", "36 scores of CXR24, largest difference"
    for name in names:
        folder = run.runs_folder() / name
        if (images_of()[name] == "phantom"
                or artifacts.stale_because(folder, "image_scores")):
            continue
        ours = artifacts.load(folder, "image_scores").sort_values("view")
        ours = ours[ours["study_id"].eq("CXR24")
                    & ours["backbone"].eq(RELEASED)][list(NATIVE_ORDER)]
        if len(ours) == 2:
            gap = np.abs(ours.to_numpy() - features.printed_scores()).max()
            why = "reproduced: within 0.001, in the network's own order"
            return _exact(item, what, None, gap, why, name,
                          within=0.001)
    do = _command("paper", " TO=02")
    return item, what, None, None, "not run", do, "paper"


def _shown_only(names: list[str]) -> Iterator[Row]:
    """Items without a number to compare: shown, or not run."""
    written = {name: {path.stem for _, path, _ in outputs(name)}
               for name in names}
    for item, number in registry()[["item", "notebook"]].to_numpy():
        where = ", ".join(n for n in names if item in written[n])
        why = "shown; the paper prints no number"
        if item == "table-4":
            why = "shown; the paper's numbers are those of one pair"
        word = "not comparable"
        if not where:
            word, where = "not run", names[0]
            why = _command(where, f" FROM={number} TO={number}")
        if item != "table-3":
            yield item, "shown whole", None, None, word, why, where


def compare(paper_split: str = "unknown") -> pd.DataFrame:
    """Each number of the paper beside ours, for every run on disk, by item:
    ``item``, ``quantity``, `NUMBERS`, ``verdict``, ``why``, ``from``.

    `paper_split` ("unknown", "r2gen", "random") is what the paper's is taken
    to be; it published none. The paper's own run always has its lines; the
    tests' run (smoke) only where there is no other.
    """
    split = None if paper_split == "unknown" else paper_split
    items = [*registry()["item"], "section-3.3", "section-3.5"]
    names = list(runs_on_disk().query("finished != ''")["run"])
    names = [n for n in names if not n.startswith("smoke")] or names
    rows = list(_counted())
    for name in dict.fromkeys([*names, "paper"]):
        rows += _measured(name, split)
    rows += [_golden(names), *_shown_only(names or ["cpu"])]
    table = pd.DataFrame(rows, columns=[
        "item", "quantity", *NUMBERS[:2], "verdict", "why", "from"])
    table = table.astype(dict.fromkeys(NUMBERS[:2], float))
    gaps = table["computed here"] - table["paper"]
    exact = table["verdict"].isin(audit.VERDICTS[:2])
    table.insert(4, "difference", gaps.where(exact))
    return table.sort_values("item", key=lambda c: c.map(items.index),
                             kind="stable", ignore_index=True)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """`compare` as text: counts without decimals, "–" where nothing is."""

    def text(value: float, paper: float, sign: str) -> str:
        decimals = 3 if not paper >= 1 else 2 * (paper % 1 != 0)
        return "–" if pd.isna(value) else f"{value:{sign},.{decimals}f}"

    return table.assign(**{
        column: [text(value, paper, "+" * (column == "difference"))
                 for value, paper in zip(table[column], table["paper"])]
        for column in NUMBERS})


# --- the page ---------------------------------------------------------------

def _shown(path: Path) -> dict[str, Any]:
    """What the template shows of a file: a picture, or the title, the cells
    and the stamp of a table of `tables.save_table`."""
    if path.suffix == ".png":
        return {"picture": plots.as_html(path)}
    title, _, *lines, _, stamp = path.read_text("utf-8").splitlines()
    header, _, *rows = [
        [cell.strip().replace("\\|", "|")
         for cell in re.split(r"(?<!\\)\|", line[1:-1])] for line in lines]
    return {"title": title.strip("*"), "stamp": stamp,
            "table": pd.DataFrame(rows, columns=header)}


def page(nb: Run, table: pd.DataFrame) -> str:
    """The reproduction on one page: `table` (of `compare`), and all tables
    and figures of the run of `nb`. No script, font or address of another
    machine; figures embedded with alt text."""
    shown = [{"name": path.stem, "notebook": notebook, "changed": not same,
              **_shown(path)} for notebook, path, same in outputs(nb.name)
             if path.suffix != ".csv"]
    items = registry().to_dict("records")
    for item in items:
        item["outputs"] = [o for o in shown if o["name"] == item["item"]]
        if item["committed"]:
            drawn = run.project_folder() / "figures" / item["committed"]
            item["drawn"] = _shown(drawn.with_suffix(".png"))["picture"]
    titles = [item["item"] for item in items]
    return PAGES.get_template("reproduction.html").render(
        run=nb.name, stamp=nb.stamp, titles=titles, items=items,
        marks=dict(zip(audit.VERDICTS, ("✓", "≠", "–", "○"))),
        counts=table["verdict"].value_counts().to_dict(),
        verdicts=readable(table), runs=runs_on_disk(),
        rest=[o for o in shown if o["name"] not in titles])
