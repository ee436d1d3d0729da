"""unsloth against plain peft, on random weights in Llama 3.1 8B's shape.

Not run on a GPU yet: none was at hand. The same command with ``--shape tiny
--device cpu`` runs the same code in seconds and says nothing about speed.

    python tests/gpu/compare_backends.py

Needs a GPU of 24 GB or more and 17 GB of disk under ``TMPDIR``, no network.
Each backend trains in a process of its own, through the functions of notebook
04, on texts of exactly ``--length`` tokens that repeat eight letters: random
weights write no language, but their loss can fall. Writes
``figures/data/backends-gpu.csv`` and ``figures/backends-gpu.svg``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from llamaxr_utils.course import machine, plots
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.course.files import write_whole
from llamaxr_utils.course.run import project_folder
from llamaxr_utils.llm import finetune, models

sys.path.append(str(project_folder() / "figures"))
from draw import keep

#: `LlamaConfig`: Llama 3.1 8B (its config.json) and one for a CPU.
SHAPES = {
    "llama-3.1-8b": dict(
        hidden_size=4096, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, intermediate_size=14336, vocab_size=128_256,
        max_position_embeddings=131_072,
    ),
    "tiny": dict(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=256, vocab_size=512,
        max_position_embeddings=2048,
    ),
}
CLAIM = "the claim: 2 times as fast, 60 % less memory"
WARM_UP = 3  # steps that compile and allocate: not timed
ALT = (
    "Three pairs of bars, peft and unsloth: tokens a second, peak memory in "
    "GB, and the loss at the first and at the last step."
)


# --- the base and the texts -------------------------------------------------


def write_base(folder: Path, shape: str, device: str) -> None:
    """A Llama with random weights, a shard a block: never whole in memory."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    letters = models.train_tokenizer(["a"], vocab_size=259)  # bytes, no merges
    letters.save_pretrained(folder)
    config = LlamaConfig(
        **SHAPES[shape], tie_word_embeddings=False, dtype="bfloat16",
        architectures=["LlamaForCausalLM"], bos_token_id=letters.bos_token_id,
        eos_token_id=letters.eos_token_id, pad_token_id=letters.pad_token_id,
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        weights = LlamaForCausalLM(config).state_dict()
    torch.manual_seed(3407)
    shards: dict[str, dict] = {}
    for name in weights:  # model.layers.7.mlp.up_proj.weight
        parts = name.split(".")
        key = "-".join(parts[1:3]) if "layers" in parts else parts[-2]
        shards.setdefault(f"model-{key}.safetensors", {})[name] = None
    for file, names in shards.items():
        for name in names:
            empty = torch.empty(
                weights[name].shape, dtype=torch.bfloat16, device=device
            )
            one = len(empty.shape) == 1  # a norm's scale
            filled = empty.fill_(1) if one else empty.normal_(std=0.02)
            names[name] = filled.cpu()
        save_file(names, folder / file, metadata={"format": "pt"})
        names.update(dict.fromkeys(names))  # frees them
    if device == "cuda":
        torch.cuda.empty_cache()
    place = {name: file for file, names in shards.items() for name in names}
    total = sum(2 * weight.numel() for weight in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def texts(n: int, length: int) -> pd.DataFrame:
    """`n` pairs of exactly `length` tokens, begin and end included."""
    rng = random.Random(3407)
    rows = []
    for _ in range(n):
        word = "".join(rng.choices("abcdefghijklmnop", k=8))
        text = (word * length)[: length - 2]
        rows.append(("train", text[: length // 2], text[length // 2 :]))
    return pd.DataFrame(rows, columns=["split", "prompt", "completion"])


# --- one backend, in a process of its own -----------------------------------


def train_one(options: argparse.Namespace) -> dict:
    """Load, wrap, train; what it cost."""
    if options.backend == "unsloth":
        finetune.import_unsloth()  # before trl, transformers and peft
    import torch

    cuda = torch.cuda.is_available()
    model, tokenizer = finetune.load_in_4bit(options.base, options.backend)
    model = finetune.add_lora(model, backend=options.backend)
    trainable, _ = finetune.count_parameters(model)
    moments, progress = [], finetune._progress

    def timed():
        callback = progress()

        def now(args, state, control, **kwargs):
            if cuda:
                torch.cuda.synchronize()
            moments.append(time.perf_counter())

        callback.on_step_begin = callback.on_step_end = now
        return callback

    finetune._progress = timed  # `train` has no door for a clock
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    precision = machine.pick_precision("auto") if cuda else "fp32"
    settings = dict(
        max_steps=options.steps, per_device_train_batch_size=options.batch,
        max_length=options.length, learning_rate=options.rate,
        warmup_steps=0, lr_scheduler_type="constant", optim="adamw_8bit",
        logging_steps=1, save_strategy="no", gradient_checkpointing=cuda,
        seed=3407, bf16=precision == "bf16", fp16=precision == "fp16",
    )
    pairs = texts(options.batch * options.steps, options.length)
    with tempfile.TemporaryDirectory() as folder:
        result = finetune.train(
            model, tokenizer, pairs, Path(folder) / "checkpoints", settings,
            loss_on="all",
        )
    spent = [b - a for a, b in zip(moments[::2], moments[1::2])][WARM_UP:]
    step = statistics.median(spent)
    peak = machine.peak_memory_gb()
    if cuda:
        peak = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    loss = result.log["loss"]
    found = {
        "backend": options.backend,
        "shape": options.shape,
        "tokens_per_second": round(options.batch * options.length / step, 1),
        "step_seconds": round(step, 4),
        "peak_memory_gb": peak,
        "first_loss": round(loss.iloc[0], 4),
        "last_loss": round(loss.iloc[-1], 4),
        "steps": options.steps,
        "batch": options.batch,
        "length": options.length,
        "trainable": trainable,
        "optimizer": result.facts["optimizer"],
        "precision": precision,
        "device": torch.cuda.get_device_name() if cuda else "CPU",
    }
    versions = machine.versions() | {"unsloth": "not used"}
    if options.backend == "unsloth":
        versions["unsloth"] = sys.modules["unsloth"].__version__
    words = ", ".join(f"{name} {v}" for name, v in versions.items())
    return {**found, "versions": words}


# --- both, side by side -----------------------------------------------------


def ratios(table: pd.DataFrame) -> str:
    """unsloth against peft in words, beside the claim."""
    rows = table.set_index("backend")
    plain, quick = rows.loc["peft"], rows.loc["unsloth"]
    speed = quick["tokens_per_second"] / plain["tokens_per_second"]
    saved = 100 * (1 - quick["peak_memory_gb"] / plain["peak_memory_gb"])
    return (
        f"unsloth against peft: {speed:.2f} times as fast, {saved:.0f} % "
        f"less memory ({CLAIM})."
    )


def draw(table: pd.DataFrame):
    """Tokens a second, peak memory and loss of both backends."""
    import matplotlib.pyplot as plt

    plots.set_style()
    figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.6))
    names = table["backend"]
    for axis, column, label in (
        (axes[0], "tokens_per_second", "tokens a second"),
        (axes[1], "peak_memory_gb", "peak memory (GB)"),
    ):
        bars = axis.bar(names, table[column], 0.55, color=["0.8", "0.35"],
                        ec="black", lw=0.6)
        axis.bar_label(bars, fmt="{:,.1f}", size=8)
        axis.set_ylabel(label)
    for row, style in zip(table.itertuples(), ("o-", "s--")):
        axes[2].plot(["first", "last"], [row.first_loss, row.last_loss],
                     style, label=row.backend)
    axes[2].set(xlabel="step", ylabel="loss")
    axes[2].legend()
    first = table.iloc[0]
    figure.suptitle(
        f"{first['shape']}, random weights, 4 bit, {first['batch']} x "
        f"{first['length']} tokens, {first['device']}", x=0.01, ha="left")
    return figure


def compare(options: argparse.Namespace) -> None:
    """Run both backends; print, and write where it is wanted."""
    device = options.device or machine.pick_device()[0]
    if options.shape != "tiny" and device != "cuda":
        raise CourseError(
            "There is no GPU for Llama 3.1 8B.",
            f"This machine offers {machine.pick_device()[0]}; the comparison "
            "needs a CUDA GPU with 24 GB.",
            "Run the same command on one, or try the code here with "
            "--shape tiny --device cpu.",
        )
    rows = []
    environment = dict(os.environ)
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as place:
        base, found = Path(place) / "base", Path(place) / "found.json"
        print("Writing the base ...", flush=True)
        write_base(base, options.shape, device)
        for backend in ("peft", "unsloth"):
            command = [sys.executable, __file__, "--shape", options.shape]
            for name in ("steps", "batch", "length", "rate"):
                command += [f"--{name}", str(getattr(options, name))]
            command += ["--backend", backend, "--base", str(base)]
            # unsloth writes its compiled cache where it stands.
            subprocess.run([*command, "--out", str(found)], check=True,
                           cwd=place, env=environment)
            rows.append(json.loads(found.read_text()))
    table = pd.DataFrame(rows)
    print(table.drop(columns="versions").T.to_string(header=False))
    print(ratios(table))
    if device != "cuda" or options.shape == "tiny":
        print("The code runs; speed and memory here say nothing about it.")
    out = options.out and Path(options.out)
    plot = out and out.with_suffix("")
    if out is None and device == "cuda" and options.shape != "tiny":
        out = project_folder() / "figures" / "data" / "backends-gpu.csv"
        plot = project_folder() / "figures" / "backends-gpu"
    if out:
        write_whole(out, lambda part: table.to_csv(part, index=False))
        keep(draw(table), plot, ALT, f"data/{out.name}")
        print(f"{out} is written, and the plot {plot}.svg.")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rate", type=float, default=2e-4,
                        help="learning rate")
    parser.add_argument("--out", metavar="CSV", help="on a GPU: "
                        "figures/data/backends-gpu.csv; else nothing")
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        if options.backend:  # this is the process of one backend
            Path(options.out).write_text(json.dumps(train_one(options)))
        else:
            compare(options)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"One backend stopped ({error.returncode}).", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
