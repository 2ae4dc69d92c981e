#!/bin/bash
# What srun starts once on every node of the job: torchrun with the two options that differ between nodes.
# All other options, the trainer and its arguments come from scripts/slurm.sh.
set -euo pipefail

# torchrun guesses which node hosts the rendezvous by comparing host names; SLURM's node names often differ
# from what a node calls itself, and then every node waits for a host that nobody is. So it is told. For the
# same reason the nodes reach each other by SLURM's names and not by socket.getfqdn().
is_host=$((SLURM_PROCID == 0))
exec torchrun "--rdzv-conf=is_host=$is_host" "--local-addr=$SLURMD_NODENAME" "$@"
