"""Training settings: the paper's, its published notebook's, and a run's.

What is stated lies in ``data/training_settings.csv``; this module sets a run
beside it. It trains nothing, and it does
not judge which setting is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

#: Where the two columns come from, for the line below the table.
SOURCES = (
    "Paper: arXiv 2506.03178, sections 3.1, 3.3 and 3.5. Published "
    "notebook: as saved; the final run may have differed."
)

_INSTRUCTION = dict.fromkeys(
    ("paper", "as-printed", "two-decimals"), "Figure 4's"
) | {"published-notebook": "the published notebook's"}
_SCORES = {
    "paper": "36, not rounded, in the order of the names",
    "as-printed": "36, not rounded, in the network's order",
    "two-decimals": "36, two decimals, in the order of the names",
    "published-notebook": "36, three decimals, in the network's order",
}


def stated() -> pd.DataFrame:
    """What others state, one row a setting.

    Returns
    -------
    DataFrame
        ``setting``; ``knob`` of notebook 04, "" where there is none;
        ``paper`` and ``published notebook``, "not named" where it is silent.
    """
    path = Path(__file__).parents[1] / "data" / "training_settings.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def this_run(
    knobs: Mapping[str, Any],
    settings: Mapping[str, Any],
    model: Any,
    pairs: pd.DataFrame,
    *,
    base: str,
    split: str,
    score_format: str,
) -> dict[str, str]:
    """A run's value of every setting of `stated`, as text.

    Parameters
    ----------
    knobs : mapping
        Of notebook 04.
    settings : mapping
        Arguments of ``trl.SFTConfig``.
    model : peft.PeftModel
        From `finetune.add_lora`: LoRA's values are read from it.
    pairs : DataFrame
        What is trained on, from `finetune.choose_rows`.
    base, split, score_format : str
        Knobs ``BASE``, ``SPLIT``, ``SCORE_FORMAT`` of the notebooks before.
    """
    (lora,) = model.peft_config.values()
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    n = pairs["split"].value_counts()
    leak = ", test rows included" if knobs["ROWS"] == "all" else ""
    patience = knobs["PATIENCE"]
    half = [name for name in ("fp16", "bf16") if settings.get(name)]
    steps = settings["gradient_accumulation_steps"]
    return {
        "base": base,
        "rank": str(lora.r),
        "alpha": str(lora.lora_alpha),
        "dropout": f"{lora.lora_dropout:g}",
        "target modules": f"{len(lora.target_modules)} linear layers",
        "trainable parameters": f"{sum(trained):,}",
        "learning rate": np.format_float_scientific(
            settings["learning_rate"], trim="-", exp_digits=1
        ),
        "scheduler": settings["lr_scheduler_type"],
        "warm-up steps": str(settings["warmup_steps"]),
        "weight decay": f"{settings['weight_decay']:g}",
        "optimizer": settings["optim"],
        "batch x accumulation": (
            f"{settings['per_device_train_batch_size']} x {steps}"
        ),
        "epochs": str(settings["num_train_epochs"]),
        "precision": half[0] if half else "fp32",
        "early stopping": f"yes, patience {patience}" if patience else "no",
        "best model at end": "yes" if patience and n.get("val") else "no",
        "max length": str(settings["max_length"]),
        "loss on": knobs["LOSS_ON"],
        "split": split,
        "rows": f"{n.get('train', 0):,}{leak}",
        "prompt in generation": "each study's own",
        "instruction": _INSTRUCTION.get(score_format, "none: names alone"),
        "scores in the prompt": _SCORES.get(score_format, score_format),
        "BLEU-3 weights": "1/3 each",
    }


def compare(run: Mapping[str, str]) -> pd.DataFrame:
    """Setting, paper, published notebook, this run.

    Parameters
    ----------
    run : mapping
        From `this_run`; a setting that it lacks is a `KeyError`.
    """
    table = stated().drop(columns="knob")
    table["this run"] = [run[setting] for setting in table["setting"]]
    return table
