"""For torchrun: training that signals torchrun in its fourth step; the first argument is the signal."""

import os
import sys

import train_imagenet
from engine.processes.program import exit_with
from tests.fault_injection import signal_torchrun_in_step

if __name__ == "__main__":
    signal_torchrun_in_step(int(os.environ["RANK"]), step=4, number=int(sys.argv.pop(1)))
    exit_with(train_imagenet.main)
