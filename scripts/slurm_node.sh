#!/bin/bash
# What srun starts once on every node of the job: torchrun with the two options that differ between nodes.
# All other options, the trainer and its arguments come from scripts/slurm.sh.
set -euo pipefail

# torchrun would find out which node hosts the rendezvous by comparing host names, and SLURM's often differ from
# what a node calls itself. For the same reason the nodes reach each other by SLURM's names.
is_host=$((SLURM_PROCID == 0))
exec torchrun "--rdzv-conf=is_host=$is_host" "--local-addr=$SLURMD_NODENAME" "$@"
