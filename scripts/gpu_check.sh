#!/bin/bash
# Checks and measures everything that needs a GPU, in less than ten minutes and without a network; see tools/gpu_check.py.
# PYTHON=... names the Python that has torch; it and --output may be relative to the caller's folder.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Not `-m`: that would look in the caller's folder first, which may be another copy of this repository.
exec "${PYTHON:-python3}" -c 'import sys
sys.path.insert(0, sys.argv[1])
from tools.gpu_check import main
sys.exit(main(sys.argv[2:]))' "$root" "$@"
