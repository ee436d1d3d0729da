"""What a course ends with: three numbers, and one page of results.

``index.html`` of a run folder shows the headline numbers, the pictures and
the tables, and leads to the executed notebooks as pages and to the case page.
No page loads anything from the network.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

import nbformat
import pandas as pd

from ..course import artifacts, run
from ..evaluation.cases import PAGES
from . import grounding

CONSTANTS = ["most frequent report", "medoid report"]
#: No script, font or picture from elsewhere.
POLICY = ('<meta http-equiv="Content-Security-Policy" content="default-src '
          "'none'; img-src data:; style-src 'unsafe-inline'\">")


def headline(folder: Path) -> list[tuple[str, str, str]]:
    """(name, number, meaning) of a run's findings F1, grounding gap and
    BLEU-4, the last beside the best constant report; [] before notebook 06."""
    if artifacts.stale_because(folder, "summary"):
        return []
    reports = artifacts.load(folder, "generations")
    reports = reports[reports["model"].eq("tuned")]
    tuned, swapped = (
        reports[reports["scores_from"].eq(side)].reset_index()
        for side in ("own", "shuffled")
    )
    rows = pd.DataFrame(grounding.swap_test(
        tuned["reference"], tuned["generated"], swapped["generated"]
    )).set_index("measure")  # fmt: skip
    gap = rows.loc[grounding.GAP]
    summary = artifacts.load(folder, "summary").set_index("system")
    bleu = summary.query("protocol == 'r2gen' and metric == 'BLEU-4'")["value"]
    span = f"95 % interval {gap['low']:.3f} to {gap['high']:.3f}"
    return [
        ("findings F1", f"{rows.loc['findings F1, own', 'value']:.3f}",
         "findings of the 18 conditions, stated as present"),
        ("grounding gap", f"{gap['value']:.3f}",
         f"F1 lost under another study's scores, {span}"),
        ("BLEU-4", f"{bleu['this run']:.3f}",
         f"protocol r2gen; one constant report: {bleu[CONSTANTS].max():.3f}"),
    ]  # fmt: skip


def notebook_page(source: Path, target: Path) -> None:
    """An executed notebook as a page of its own."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        mathjax_url="", require_js_url="", jquery_url="",
        exclude_input_prompt=True, exclude_output_prompt=True,
    )  # fmt: skip
    page = nbformat.read(source, as_version=4)
    first = page.cells[0]
    first.source = re.sub(r"^\[!\[Open in Colab.*\n", "", first.source)
    page.cells = [c for c in page.cells if "jupyter" not in c.metadata
                  or not c.metadata.jupyter.get("source_hidden")]
    body, _ = exporter.from_notebook_node(page)
    body = re.sub(r'href="(\w+)\.ipynb"', r'href="\1.html"', body)
    body = body.replace("<head>", f"<head>{POLICY}", 1)
    body = body.replace("</body>", f"<p>{run.WARNING}</p></body>", 1)
    artifacts.write_whole(target, lambda part: part.write_text(body, "utf-8"))


def write_index(profile: str, images: str | None = None) -> Path | None:
    """``index.html`` of a run, with a page for each executed notebook; None
    before notebook 06 has run."""
    name = run.run_name(profile, images)
    folder = run.runs_folder() / name
    numbers = headline(folder)
    if not numbers:
        return None
    notebooks = []
    for notebook in run.NOTEBOOKS:
        source = folder / "notebooks" / f"{notebook}.ipynb"
        record = run.read_record(folder, notebook)
        if source.is_file() and record:
            target = source.with_suffix(".html")
            new = target.is_file() and target.stat().st_mtime
            if not new or new < source.stat().st_mtime:
                notebook_page(source, target)
            title = notebook.replace("_", " ", 1).replace("_", " ")
            notebooks.append((title, target.name, record["seconds"]))
    pictures = []
    for file in sorted((folder / "figures").glob("*.png")):
        code = base64.b64encode(file.read_bytes()).decode()
        pictures.append((file.stem, f"data:image/png;base64,{code}"))
    text = PAGES.get_template("index.html").render(
        name=name, numbers=numbers, notebooks=notebooks, pictures=pictures,
        tables=sorted(f.name for f in (folder / "tables").glob("*.csv")),
        cases=(folder / "cases.html").is_file(), warning=run.WARNING,
        images=images or run.declared()["profiles"][profile]["images"],
        whole=len(notebooks) == len(run.NOTEBOOKS),
    )  # fmt: skip
    path = folder / "index.html"
    artifacts.write_whole(path, lambda part: part.write_text(text, "utf-8"))
    return path
