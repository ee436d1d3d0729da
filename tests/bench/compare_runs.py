"""Are two run folders equal? Artifacts to the last digit, tables in values.

    python tests/bench/compare_runs.py runs/before/cpu runs/cpu

Compare runs of the same machine, seed and number of threads (`taskset -c 0`
makes them one). Seconds, memory, versions and dates do not count.
"""

import sys
from pathlib import Path

import pandas as pd

ARTIFACTS = ("studies.parquet", "views.parquet", "image_scores.parquet",
             "prompts.parquet", "generations.parquet", "metrics.parquet",
             "operating_points.csv", "training_log.csv", "summary.csv")
#: Columns and rows that differ between two runs of the same code.
TIMES = ("seconds", "minutes", "peak memory (GB)", "report_seconds",
         "step_seconds", "memory_gb")


def read(path: Path) -> pd.DataFrame:
    parquet = path.suffix == ".parquet"
    table = pd.read_parquet(path) if parquet else pd.read_csv(path)
    table = table.drop(columns=[c for c in table if str(c) in TIMES])
    first = table.columns[0] if len(table.columns) else None
    return table if first is None else table[~table[first].isin(TIMES)]


def difference(old: Path, new: Path) -> str:
    """What differs, in a line; "" where nothing does."""
    if not (old.is_file() and new.is_file()):
        return f"only in {'old' if old.is_file() else 'new'}"
    a, b = (read(p).reset_index(drop=True) for p in (old, new))
    if list(a) != list(b):
        return f"columns: {sorted(set(map(str, a)) ^ set(map(str, b)))}"
    if len(a) != len(b):
        return f"{len(a)} and {len(b)} rows"
    words = []
    for name in a:
        try:  # two NaN are equal here, among objects too
            pd.testing.assert_series_equal(a[name], b[name], check_exact=True)
        except AssertionError:
            other = a[name].map(repr) != b[name].map(repr)
            row = other.idxmax()
            words.append(f"{name}: {other.sum()} of {len(a)}, first "
                         f"{a[name][row]!r} and {b[name][row]!r}")
    return "; ".join(words)


def main(old: str, new: str) -> int:
    folders = Path(old), Path(new)
    names = [*ARTIFACTS, *sorted({
        f"tables/{p.name}" for f in folders for p in f.glob("tables/*.csv")})]
    results = {n: difference(folders[0] / n, folders[1] / n) for n in names}
    for name, words in results.items():
        print(f"{name:32} {words[:400] or 'equal'}")
    differing = sum(map(bool, results.values()))
    print(f"{len(results) - differing} of {len(results)} are equal.")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
