"""A copy of MIMIC-CXR-JPG as the course's tables ``studies`` and ``views``.

The data set is open to credentialed users only: this module reads the copy
that you have, as it lies in its folders, and downloads nothing. Its sections
are found by their headings; MIT-LCP's own parser knows more special cases.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from ..course import artifacts
from ..course.errors import CourseError
from ..course.profiles import run_name
from ..course.run import data_folder, runs_folder

#: ``ViewPosition`` -> view; the rest (blank, obliques ...) takes no part.
MIMIC_VIEWS = {"PA": "frontal", "AP": "frontal"} | dict.fromkeys(
    ("LATERAL", "LL"), "lateral"
)
#: CheXpert's label -> the heading that `mesh` reads as the same condition.
#: ``Pleural Other`` and ``Support Devices`` are none of the 18.
HEADINGS = {
    "Atelectasis": "Pulmonary Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Pulmonary Edema",
    "Enlarged Cardiomediastinum": "Mediastinum/enlarged",
    "Fracture": "Fractures, Bone",
    "Lung Lesion": "Cysts/lung",
    "Lung Opacity": "Opacity/lung",
    "Pleural Effusion": "Pleural Effusion",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}
_HEADER = re.compile(r"^[ \t]*([A-Z][A-Z ()/,-]*):", re.MULTILINE)
_SECTIONS = {
    "findings": ("FINDINGS",),
    "impression": ("IMPRESSION", "CONCLUSION"),
    "indication": ("INDICATION", "HISTORY", "REASON FOR EXAM"),
    "comparison": ("COMPARISON",),
}


def mimic_sections(report: str) -> dict[str, str]:
    """``findings``, ``impression``, ``indication``, ``comparison`` of a
    MIMIC-CXR report: text below a heading in capitals, white space folded,
    "" when absent. Text that stands under no heading is left out."""
    parts = _HEADER.split(report)
    found = dict.fromkeys(_SECTIONS, "")
    for header, text in zip(parts[1::2], parts[2::2], strict=True):
        for section, starts in _SECTIONS.items():
            if header.startswith(starts) and not found[section]:
                found[section] = " ".join(text.split())
    return found


def load_mimic(
    folder: str | Path, reports: str | Path | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A copy of MIMIC-CXR-JPG, or of a part of it, as the course's tables.

    Parameters
    ----------
    folder : path
        Holds ``files/p10/p10000032/s50414267/<dicom_id>.jpg``,
        ``mimic-cxr-2.0.0-metadata.csv[.gz]``, ``...-split.csv[.gz]`` and, if
        you like, ``...-chexpert.csv[.gz]``.
    reports : path, optional
        Holds ``files/p10/p10000032/s50414267.txt`` (of MIMIC-CXR itself);
        `folder` when None.

    Returns
    -------
    (DataFrame, DataFrame)
        Schemas ``studies`` and ``views``, of the studies that have a report
        and an image on this disk. ``split`` is the official one, by patient;
        "none" where there are no findings. ``mesh`` and ``status`` come from
        CheXpert's labels (`HEADINGS`; doubtful ones count as absent), else
        every study is "not indexed". One frontal and one lateral a study:
        PA before AP, LATERAL before LL, then by id.

    Raises
    ------
    CourseError
        A file is missing, or nothing of it is on this disk.
    """
    folder, reports = Path(folder), Path(reports or folder)
    views = _mimic_views(folder, _mimic_csv(folder, "metadata"))
    split = _mimic_csv(folder, "split").drop_duplicates("study_id")
    split = split.set_index("study_id")["split"].replace("validate", "val")
    labels = _mimic_csv(folder, "chexpert", needed=False)
    by_study = labels.set_index("study_id") if len(labels) else labels
    rows = []
    for (subject, study), images in views.groupby(["subject_id", "number"]):
        file = reports / _place(subject) / f"s{study}.txt"
        if not file.is_file():
            continue
        text = mimic_sections(file.read_text("utf-8", errors="replace"))
        known = by_study.loc[study] if study in by_study.index else None
        mesh, status = _mimic_labels(known)
        usable = split.get(study, "none") if text["findings"] else "none"
        rows.append(
            {"study_id": f"s{study}", **text, "mesh": mesh, "status": status,
             "n_images": len(images), "split_r2gen": "none",
             "split_random": "none", "split": usable,
             "subject_id": f"p{subject}"}
        )
    if not rows:
        raise CourseError(
            f"No study of MIMIC-CXR was found under {folder.name}/.",
            f"{len(views)} images with a known view lie there, and none has "
            f"its report under {reports.name}/files/.",
            "Unpack mimic-cxr-reports.zip there; see "
            "notebooks/bring_mimic_cxr.md.",
        )
    studies = pd.DataFrame(rows)
    views = views[views["study_id"].isin(studies["study_id"])]
    first = views.sort_values(["study_id", "view", "rank", "image_id"])
    first = first.drop_duplicates(["study_id", "view"])
    columns = list(artifacts.ARTIFACTS["views"].columns)
    return studies, first[columns].reset_index(drop=True)


def save_mimic_run(
    studies: pd.DataFrame,
    views: pd.DataFrame,
    profile: str,
    images: str | None = "real",
) -> Path:
    """Put the tables of `load_mimic` where notebook 02 reads its inputs.

    Returns
    -------
    Path
        The run folder. It must be new: a run of IU X-ray stays what it is.
    """
    folder = runs_folder() / run_name(profile, images)
    if (folder / "studies.parquet").exists():
        raise CourseError(
            f"There is a run in {folder.name} already.",
            "Studies of two collections do not mix in one folder.",
            "Set LLAMAXR_RUNS to a new folder for MIMIC-CXR.",
        )
    for name, table in (("studies", studies), ("views", views)):
        artifacts.save(
            folder,
            name,
            table,
            writer="01_explore_data",
            inputs=["studies"] if name == "views" else [],
            parameters={"images": "real", "SPLIT": "MIMIC-CXR's"},
        )
    return folder


def _place(subject: int) -> str:
    return f"files/p{str(subject)[:2]}/p{subject}"


def _mimic_csv(
    folder: Path, name: str, needed: bool = True
) -> pd.DataFrame:
    found = sorted(folder.glob(f"mimic-cxr-2.*-{name}.csv*"))
    if found:
        return pd.read_csv(found[-1], low_memory=False)
    if not needed:
        return pd.DataFrame()
    raise CourseError(
        f"mimic-cxr-2.0.0-{name}.csv.gz was not found in {folder.name}/.",
        "MIMIC-CXR-JPG's tables say which view an image is and which split "
        "a study belongs to.",
        "Copy it from your download; see notebooks/bring_mimic_cxr.md.",
    )


def _mimic_views(folder: Path, metadata: pd.DataFrame) -> pd.DataFrame:
    """Images with a known view that are on this disk."""
    table = metadata[metadata["ViewPosition"].isin(MIMIC_VIEWS)]
    table = table.rename(columns={"dicom_id": "image_id"})
    table = table.assign(
        number=table["study_id"],
        study_id="s" + table["study_id"].astype(str),
        view=table["ViewPosition"].map(MIMIC_VIEWS),
        rank=table["ViewPosition"].map(list(MIMIC_VIEWS).index),
        view_source="ViewPosition",
        image_source="MIMIC-CXR-JPG",
    )
    files = [
        folder / _place(r.subject_id) / r.study_id / f"{r.image_id}.jpg"
        for r in table.itertuples()
    ]
    home = data_folder().resolve()
    inside = folder.resolve().is_relative_to(home)
    whole = [file.resolve() for file in files]
    table["path"] = [
        file.relative_to(home).as_posix() if inside else str(file)
        for file in whole
    ]
    return table[[file.is_file() for file in files]]


def _mimic_labels(labels: pd.Series | None) -> tuple[list[str], str]:
    """Headings and status of a study from CheXpert's 14 labels."""
    if labels is None:
        return ["No Indexing"], "not indexed"
    present = [str(name) for name, value in labels.items() if value == 1]
    if "No Finding" in present:
        return ["normal"], "normal"
    if not present:  # doubtful ones at most
        return ["No Indexing"], "not indexed"
    return [HEADINGS.get(name, name) for name in present], "abnormal"
