"""What the log_* scripts share: the tables of figures/data."""

from pathlib import Path

import pandas as pd

from llamaxr_utils.course.artifacts import write_whole

DATA = Path(__file__).parents[2] / "figures" / "data"


def read(file: Path) -> pd.DataFrame:
    """The rows so far."""
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


def write(file: Path, table: pd.DataFrame, digits: str | None = None) -> None:
    """The whole table or nothing."""
    write_whole(file, lambda part: table.to_csv(
        part, index=False, float_format=digits))
    print(f"{len(table)} rows in {file.name}", flush=True)
