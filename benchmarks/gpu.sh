#!/usr/bin/env bash
# Check and measure on one NVIDIA GPU what otherwise only runs on CPUs; see benchmarks/gpu.py for the options.
# PYTHON chooses the interpreter of an environment with spacy-slmre; by default .venv/bin/python, or else python3.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
command -v "$python" > /dev/null || python=python3
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false TORCHINDUCTOR_COMPILE_THREADS=1
if command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
fi
exec "$python" "$root/benchmarks/gpu.py" "$@"
