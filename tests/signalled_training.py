"""For torchrun: training that signals or kills torchrun; the first argument says how.

A number: the signal, in the fourth step. "step": killed then. Anything else: killed in the rendezvous, after
making the file of that name.
"""

import os
import sys
from pathlib import Path

import train_imagenet
from engine.processes.program import exit_with
from tests import fault_injection

if __name__ == "__main__":
    rank, how = int(os.environ["RANK"]), sys.argv.pop(1)
    if how.isdecimal():
        fault_injection.signal_torchrun_in_step(rank, step=4, number=int(how))
    elif how == "step":
        fault_injection.kill_torchrun_in_step(rank, step=4)
    else:
        fault_injection.kill_torchrun_in_rendezvous(rank, mark=Path(how))
    exit_with(train_imagenet.main)
