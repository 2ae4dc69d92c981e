#!/bin/bash
# Checks and measures everything that needs a GPU, in less than ten minutes and without a network; see tools/gpu_check.py.
# PYTHON=... names the Python that has torch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python3}" -m tools.gpu_check "$@"
