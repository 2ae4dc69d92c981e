"""The training itself: step, loop, optimizer, schedules, checkpoints."""
