"""Write the address of your copy wherever it belongs: ``make publish URL=...``

Without an address the notebooks have no badge, and their setup cell clones
nothing: a placeholder could become somebody else's repository.
"""

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
ADDRESS = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?")
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/"
SETUP = re.compile(r'(?<=^    url = ).*$', re.MULTILINE)
HOW = "# of your copy: make publish URL=..."


def badges(owner: str, name: str, notebook: str) -> str:
    """Links that open a notebook of a GitHub repository."""
    place = f"github.com/{owner}/{name}/blob/main/notebooks/{notebook}"
    colab = place.replace("github.com/", "github/", 1)
    return (f"{BADGE}colab-badge.svg)](https://colab.research.google.com/"
            f"{colab}) [Kaggle](https://kaggle.com/kernels/welcome?src="
            f"https://{place})\n\n")


def publish(root: Path, url: str) -> None:
    """Write `url` into pyproject.toml and all notebooks; "" takes it out."""
    found = ADDRESS.fullmatch(url)
    if url and not found:
        raise SystemExit(
            f"  What: {url!r} is no address of a repository.\n"
            "  Why:  Colab and Kaggle open notebooks from GitHub.\n"
            "  Do:   make publish URL=https://github.com/you/your-copy")
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        title, setup = notebook.cells[:2]
        title.source = title.source[title.source.index("# "):]
        if found:
            title.source = badges(*found.groups(), path.name) + title.source
        setup.source = SETUP.sub(
            f'"{url}"' if url else f'""  {HOW}', setup.source)
        nbformat.write(notebook, path)
    for name, old, new in (
            ("pyproject.toml", r"\n\[project\.urls\]\n(?:.+\n)*",
             f'\n[project.urls]\nRepository = "{url}"\n'),
            ("CITATION.cff", r"repository-code: .*\n",
             f'repository-code: "{url}"\n')):
        text = re.sub(old, "", (root / name).read_text("utf-8"))
        (root / name).write_text(text + (new if found else ""), "utf-8")


if __name__ == "__main__":
    publish(ROOT, *sys.argv[1:])
