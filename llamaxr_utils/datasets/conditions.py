"""The 18 conditions: their names, the paper's order, torchxrayvision's order.

Scores travel by condition *name* through the whole kit. Position is used in
one place only, the text of the paper's prompt, and there the order is asked
for by its own name. This module is the only one that knows both orders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..course.errors import CourseError

#: The paper's order (section 3.1, also the order that Figure 4's text
#: promises): alphabetical.
CONDITIONS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Enlarged Cardiomediastinum",
    "Fibrosis",
    "Fracture",
    "Hernia",
    "Infiltration",
    "Lung Lesion",
    "Lung Opacity",
    "Mass",
    "Nodule",
    "Pleural Thickening",
    "Pneumonia",
    "Pneumothorax",
)

#: The order in which torchxrayvision's DenseNet returns its 18 outputs
#: (``torchxrayvision.datasets.default_pathologies``).
NATIVE_ORDER: tuple[str, ...] = (
    "Atelectasis",
    "Consolidation",
    "Infiltration",
    "Pneumothorax",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Effusion",
    "Pneumonia",
    "Pleural Thickening",
    "Cardiomegaly",
    "Nodule",
    "Mass",
    "Hernia",
    "Lung Lesion",
    "Fracture",
    "Lung Opacity",
    "Enlarged Cardiomediastinum",
)

#: Condition -> what the report labeller (`evaluation.findings`) calls it.
FINDING_OF: dict[str, str] = {name: name for name in CONDITIONS} | {
    "Effusion": "Pleural Effusion",
    "Infiltration": "Lung Opacity",
    "Mass": "Lung Lesion",
    "Nodule": "Lung Lesion",
    "Pleural Thickening": "Pleural Other",
}
#: The findings of the 18 conditions: 15 names.
CONDITION_FINDINGS = tuple(dict.fromkeys(FINDING_OF.values()))
#: Finding -> the conditions that can name it. A granuloma is a nodule that
#: is known to be old (`mesh.RULES`).
NAMED_BY: dict[str, list[str]] = {
    finding: [c for c in CONDITIONS if FINDING_OF[c] == finding]
    for finding in CONDITION_FINDINGS
} | {"Granuloma": ["Nodule"]}

VIEWS: tuple[str, str] = ("frontal", "lateral")


def plain_name(name: str) -> str:
    """torchxrayvision's spelling -> the paper's (``Pleural_Thickening``)."""
    return name.replace("_", " ").strip()


def by_name(values: Sequence[float], names: Sequence[str]) -> dict[str, float]:
    """Name the outputs of a network.

    Parameters
    ----------
    values : sequence of float, length 18
    names : sequence of str, length 18
        The network's own ``pathologies``, in its own order; "" for an
        output that belongs to no condition (torchxrayvision's networks for
        single collections have such).

    Returns
    -------
    dict
        Condition -> value, in the order of `CONDITIONS`; NaN for one that
        the network does not know.

    Raises
    ------
    CourseError
        If the names are not the 18 conditions, each at most once.
    """
    plain = [plain_name(name) for name in names]
    named = {name: value for name, value in zip(plain, values) if name}
    lengths = {len(values), len(plain), len(named) + plain.count("")}
    foreign = set(named) - set(CONDITIONS)
    if lengths != {len(CONDITIONS)} or foreign or not named:
        raise CourseError(
            f"{len(values)} scores came with {len(plain)} names that are not "
            "the 18 conditions.",
            f"Unknown: {sorted(foreign)}; missing: "
            f"{sorted(set(CONDITIONS) - set(plain))}.",
            "Set `model.pathologies` to the 18 names in the order of the "
            "network's outputs (conditions.NATIVE_ORDER for torchxrayvision).",
        )
    return {name: float(named.get(name, np.nan)) for name in CONDITIONS}


def as_vector(
    scores: Mapping[str, float], order: Sequence[str] = CONDITIONS
) -> np.ndarray:
    """Scores by name -> array of shape (18,), float64, in the order asked."""
    return np.array([scores[name] for name in order], dtype=float)
