"""Train with PWLU on several processes in mixed precision: float16 on GPUs, bfloat16 on CPUs.

torchrun --nproc-per-node 2 examples/ddp_amp.py
"""

import gc

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import pwlu

EPOCHS, PHASE1_EPOCHS, BATCH_SIZE = 4, 1, 32


def train() -> None:
    """Train on the digits; the first process prints the loss of every epoch."""
    on_gpu = torch.cuda.is_available()
    rank, world_size = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if on_gpu else torch.device("cpu")
    precision = torch.float16 if on_gpu else torch.bfloat16
    torch.manual_seed(0)  # every process draws the same order of images and takes its share of it
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32, device=device)[:, None] / 8 - 1
    labels = torch.tensor(digits.target, device=device)
    steps_per_epoch = len(images) // (BATCH_SIZE * world_size)

    hidden = [nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), pwlu.PWLU(16), nn.Conv2d(16, 32, 3), pwlu.PWLU(32)]
    last = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    model = DistributedDataParallel(nn.Sequential(*hidden, *last).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    phases = pwlu.TwoPhaseLearning(model, phase1_steps=PHASE1_EPOCHS * steps_per_epoch)
    for epoch in range(EPOCHS):
        total = torch.zeros((), device=device)
        share = torch.randperm(len(images))[rank::world_size]
        for batch in share.split(BATCH_SIZE)[:steps_per_epoch]:
            optimizer.zero_grad()
            with torch.autocast(device.type, precision):
                loss = F.cross_entropy(model(images[batch]), labels[batch])
            scaler.scale(loss).backward()
            phases.before_optimizer_step()  # explicit calls: a step that the scaler skips counts too
            scaler.step(optimizer)
            scaler.update()
            if phases.after_optimizer_step() and rank == 0:
                print("boundaries realigned")
            total += loss.detach()
        dist.all_reduce(total)
        if rank == 0:
            print(f"epoch {epoch + 1}: mean loss {total / (steps_per_epoch * world_size):.3f}")


if __name__ == "__main__":
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    train()
    dist.destroy_process_group()
    gc.collect()  # frees the DDP module, which holds gloo's threads: one that is left may abort Python's end
