"""Every table and figure of the paper beside what the runs on disk give.

Reads the registry (``figures/README.md``), the records of finished notebooks
and their tables and figures; computes nothing anew but counts, trains
nothing, and puts all of it on one page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from ..course import artifacts, plots, run, tables
from ..course.run import NOTEBOOKS, Run
from ..datasets.conditions import NATIVE_ORDER
from ..datasets.reports import DATA, load_image_ids, load_studies
from ..evaluation import published
from ..evaluation.cases import PAGES
from ..llm.models import LLAMA_8B
from ..vision.backbones import RELEASED

TRAINABLE = 41_943_040  #: parameters, by the paper's section 3.5
#: Llama 3.1 8B (its config.json, arXiv 2407.21783).
LAYERS, WIDTH, VOCABULARY = 32, 4096, 128_256
#: Tables of the course with these columns hold numbers of systems, as the
#: artifact ``summary`` does.
SUMMARY = {"system", "protocol", "split", "n", "metric", "value", "low"}
COLUMNS = ["item", "quantity", "paper", "computed here", "difference",
           "verdict", "why", "from"]  # fmt: skip


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
        [[cell.strip("`") for cell in line.split(" | ")] for line in lines],
        columns=["title", "notebook", "tag", "file", "committed", "status"])
    names = table["title"].str.extract(r"(\w+) (\d) \((.+)\)$")
    table.insert(0, "item", names[0].str.lower() + "-" + names[1])
    table["title"] = names[0] + " " + names[1] + ": " + names[2]
    return table.replace({"committed": {"–": ""}})


def images_of(name: str) -> str:
    """"phantom" or "real" for the name of a run folder, "" for others."""
    return {run.run_name(profile, images): images
            for profile in run.declared()["profiles"]
            for images in run.IMAGE_SOURCES}.get(name, "")


def _command(name: str, first: str = "", last: str = "") -> str:
    """``make course`` for (a part of) a run."""
    ends = f" FROM={first}" if first else ""
    ends += f" TO={last}" if last else ""
    return f"make course{ends}{artifacts.run_options(Path(name))}"


def runs_on_disk() -> pd.DataFrame:
    """A row a run folder, then one for each profile that has none: ``run``,
    ``images``, ``finished`` and ``missing`` (numbers of notebooks 01 to 10),
    ``do`` (the command for what is missing)."""
    home, rows = run.runs_folder(), []
    there = sorted(p.name for p in home.glob("*") if images_of(p.name))
    for name in dict.fromkeys([*there, *run.declared()["profiles"]]):
        finished = [n[:2] for n in NOTEBOOKS[:-1]
                    if run.read_record(home / name, n)]
        missing = [n[:2] for n in NOTEBOOKS[:-1] if n[:2] not in finished]
        # In between, the runner skips what is up to date.
        ends = (missing[0], missing[-1]) if finished and missing else ()
        rows.append({
            "run": name, "images": images_of(name),
            "finished": " ".join(finished), "missing": " ".join(missing),
            "do": _command(name, *ends) if missing else ""})
    return pd.DataFrame(rows)


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


def _counted() -> Iterator[tuple]:
    """What can be counted or multiplied, whatever was run."""
    for item, what, paper, value, where in (
        ("figure-1", "trainable parameters", TRAINABLE, lora_parameters(16),
         "Llama 3.1 8B, rank 16 on seven layers a block"),
        ("table-2", "reports", 3955, len(load_studies()), "the reports"),
        ("table-2", "images", 7470, len(load_image_ids()), "the reports"),
    ):
        word = "reproduced" if paper == value else "differs"
        yield (item, what, paper, value, value - paper, word,
               "counted, exact", where)
    quoted = published.published_results().set_index("system")
    claim, rest = quoted.loc["LLaMA-XR"], quoted.drop(index="LLaMA-XR")
    for metric, printed in (("ROUGE-L", 4.34), ("METEOR", 54.13)):
        gain = 100 * (claim[metric] / rest[metric].max() - 1)
        why = "right as a division, but of two protocols, llamaxr and r2gen"
        yield ("table-3", f"gain in {metric}, %", printed, gain, None,
               "not comparable", why, "the paper's rows")


def _artifact(name: str, artifact: str) -> pd.DataFrame | None:
    """A table of a run, None if it is missing, damaged or out of date.
    Inputs that were not brought along (an adapter left on Colab) are no
    objection; inputs that are there must be the recorded ones."""
    folder = run.runs_folder() / name
    record = artifacts.manifest(folder, artifact)
    if record is None:
        return None
    path = artifacts.path_of(folder, artifact)
    recorded = {artifacts.path_of(folder, source): digest
                for source, digest in record["inputs"].items()}
    recorded[path] = record["sha256"]
    if any(file.exists() and artifacts.sha256(file) != digest
           for file, digest in recorded.items()):
        return None
    read = pd.read_csv if path.suffix == ".csv" else pd.read_parquet
    return read(path)


def _measured(name: str, split: str | None) -> Iterator[tuple]:
    """Rows of Table 3 that a run has numbers for; always the paper's own."""
    record = artifacts.manifest(run.runs_folder() / name, "prompts")
    base = (record or {"parameters": {}})["parameters"].get("BASE", "")
    parts = [f"{images_of(name)} images", *([base] if base else [])]
    source = f"{name} ({', '.join(parts)})"
    whole = {path: pd.read_csv(path) for _, path, same in outputs(name)
             if same and path.parent.name == "tables"
             and path.suffix == ".csv"}
    rows = pd.concat([
        pd.DataFrame(columns=[*SUMMARY, "images", "note"]),
        _artifact(name, "summary"),
        *(table for table in whole.values() if set(table) >= SUMMARY),
    ]).drop_duplicates()
    public = set(published.published_results()["system"]) & set(rows["system"])
    pairs = [("this run", "LLaMA-XR"), *((s, s) for s in sorted(public))]
    for system, paper in pairs:
        compared = published.compare_with_paper(
            rows, system, paper, paper_split=split,
            command=_command(name, last="06"),
        )
        for row in compared.itertuples(index=False, name=None):
            metric, *_, printed, value, gap, word, why = row
            yield ("table-3", f"{paper}: {metric}", printed, value, gap,
                   word, why, source)
    training = whole.get(run.runs_folder() / name / "tables" / "training.csv")
    if training is not None and base:
        facts = training.set_index("fact").iloc[:, 0]
        count = int(facts["trainable parameters"].replace(",", ""))
        verdict: tuple = (None, "not comparable", f"the base is {base}")
        if base == "llama-3.1-8b":
            gap = count - TRAINABLE
            verdict = (gap, "differs" if gap else "reproduced",
                       "counted in the model")
        yield ("figure-1", "trainable parameters", TRAINABLE, count,
               *verdict, source)


def _golden(names: list[str]) -> tuple:
    """The 36 scores printed in Figure 4, those of study CXR24."""
    what = "36 scores of CXR24, largest difference"
    printed = pd.read_csv(DATA / "figure_4_scores.csv")
    for name in (n for n in names if images_of(n) == "real"):
        scores = _artifact(name, "image_scores")
        if scores is None:
            continue
        ours = scores[(scores["study_id"] == "CXR24")
                      & (scores["backbone"] == RELEASED)]
        if len(ours) == 2:
            ours = ours.sort_values("view")[list(NATIVE_ORDER)]
            gap = abs(ours.to_numpy().T - printed[["first", "second"]])
            largest = float(gap.to_numpy().max())
            word = "reproduced" if largest < 0.001 else "differs"
            why = "reproduced: within 0.001, in the network's own order"
            return ("figure-4", what, 0.0, largest, largest, word, why, name)
    return ("figure-4", what, 0.0, None, None, "not run",
            _command("paper", last="02"), "paper")


def _shown_only(names: list[str], items: pd.DataFrame) -> Iterator[tuple]:
    """Items without a number to compare: shown, or not run."""
    written = {name: {path.stem for _, path, _ in outputs(name)}
               for name in names}
    with_numbers = items["item"].isin(["figure-1", "table-3"])
    for row in items[~with_numbers].itertuples():
        where = ", ".join(n for n in names if row.item in written[n])
        word, why = "not comparable", "shown; the paper prints no number"
        if row.item == "table-4":
            why = "shown; the paper's numbers are those of one pair"
        if not where:
            number, word = str(row.notebook), "not run"
            why = _command(names[0], number, number)
        yield (row.item, "shown whole", None, None, None, word, why,
               where or names[0])


def compare(paper_split: str = "unknown") -> pd.DataFrame:
    """Each number of the paper beside ours, for every run on disk: `COLUMNS`,
    by item. `paper_split` ("unknown", "r2gen", "random") is what the paper's
    is taken to be; it published none. The paper's own run always has its
    lines; the tests' run (smoke) only where there is no other."""
    items, runs = registry(), runs_on_disk()
    split = None if paper_split == "unknown" else paper_split
    rows = list(_counted())
    names = list(runs.loc[runs["finished"] != "", "run"])
    names = [n for n in names if not n.startswith("smoke")] or names
    for name in dict.fromkeys([*names, "paper"]):
        rows += _measured(name, split)
    rows += [_golden(names), *_shown_only(names or ["cpu"], items)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    table[COLUMNS[2:5]] = table[COLUMNS[2:5]].astype(float)
    order = {item: i for i, item in enumerate(items["item"])}
    return table.sort_values("item", key=lambda c: c.map(order),
                             kind="stable", ignore_index=True)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """`compare` as text: counts without decimals, "–" where nothing is."""

    def text(value: float, paper: float, sign: str) -> str:
        decimals = 3 if paper < 1 else 2 * (paper % 1 != 0)
        return "–" if pd.isna(value) else f"{value:{sign},.{decimals}f}"

    return table.assign(**{
        column: [text(value, paper, "+" * (column == "difference"))
                 for value, paper in zip(table[column], table["paper"])]
        for column in COLUMNS[2:5]})


# --- the page ---------------------------------------------------------------


def _cells(text: str) -> list[list[str]]:
    """The cells of a Markdown table of `tables.markdown`, header first."""
    lines = [li for li in text.splitlines() if li.startswith("|")]
    return [[c.strip().replace("\\|", "|")
             for c in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
            for line in lines if not line.startswith("| ---")]


def _shown(path: Path) -> dict[str, Any]:
    """What the template shows of a file: a picture or a table."""
    if path.suffix == ".png":
        return {"picture": Markup(plots.as_html(path))}
    title, _, rest = path.read_text("utf-8").partition("\n")
    return {"title": title.strip("*"), "rows": _cells(rest),
            "stamp": rest.rstrip().splitlines()[-1]}


def page(nb: Run, table: pd.DataFrame) -> str:
    """The reproduction on one page: `table` (of `compare`), and all tables
    and figures of the run of `nb`. No script, font or address of another
    machine; figures embedded with alt text."""
    shown = [{"name": path.stem, "notebook": notebook, "changed": not same,
              **_shown(path)} for notebook, path, same in outputs(nb.name)
             if path.suffix != ".csv"]
    items = registry().to_dict("records")
    for item in items:
        drawn = run.project_folder() / "figures" / (item["committed"] or "-")
        drawn = drawn.with_suffix(".png")
        item["drawn"] = _shown(drawn)["picture"] if drawn.is_file() else ""
        item["outputs"] = [o for o in shown if o["name"] == item["item"]]
    titles = [item["item"] for item in items]
    return PAGES.get_template("reproduction.html").render(
        run=nb.name, stamp=nb.stamp, titles=titles, items=items,
        marks=dict(zip(published.VERDICTS, ("✓", "≠", "–", "○"))),
        counts=table["verdict"].value_counts().to_dict(),
        verdicts=_cells(tables.markdown(readable(table))),
        runs=_cells(tables.markdown(runs_on_disk())),
        rest=[o for o in shown if o["name"] not in titles])
