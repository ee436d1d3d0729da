#!/usr/bin/env bash
# The course on a GPU: unsloth beside peft, then notebooks 01 to 07 of profile
# `t4`, on 201 studies and with few steps: under eight minutes on one H100.
#
#     PYTHON=.venv/bin/python bash tests/gpu/course_on_gpu.sh
#
# Random weights in Llama 3.1 8B's shape stand for the base, phantoms for
# X-rays, a DenseNet-121 trained on them for the released network. So this says
# that the path runs and how long it takes; its scores say nothing. Memory:
# `nvidia-smi --query-gpu=memory.used --format=csv -l 5` beside it.
set -u
cd "$(dirname "$0")/../.." || exit 1
export LLAMAXR_DATA=${LLAMAXR_DATA:-$PWD/data}
python=${PYTHON:-python3} failed=0
timeout 240 "$python" tests/gpu/compare_backends.py --steps 8 \
    --ways unsloth peft --base "$LLAMAXR_DATA/models" || failed=1

notebook() { # its name, the knobs that differ from the profile's
    local began=$SECONDS
    timeout 200 "$python" - "$@" <<'END' || failed=1
import sys
import yaml
from llamaxr_utils.course import run, runner

name, change = sys.argv[1:]
copy = runner.executed_path(run.runs_folder() / "t4-phantom", name)
runner.execute(run.project_folder() / "notebooks" / f"{name}.ipynb", copy, {
    "PROFILE": "t4", "IMAGES": "phantom", "CHANGE": yaml.safe_load(change)})
END
    echo "$1: $((SECONDS - began)) s"
}
notebook 01_explore_data "{N_STUDIES: 201}"
notebook 02_extract_features "{BACKBONE: densenet121@phantom,
    BACKBONE_EPOCHS: 5, N_HEATMAPS: 3, N_MAPS: 16}"
notebook 03_build_prompts "{BASE: llama-3.1-8b}"
notebook 04_finetune_qlora "{EPOCHS: 2, ACCUMULATION: 4, WARMUP_STEPS: 2}"
notebook 05_generate_reports "{N_TEST: 32, N_BASE: 8, MAX_NEW_TOKENS: 100}"
notebook 06_evaluate_reports "{}"
notebook 07_read_cases "{}"
exit $failed
