"""What every trainer of the project shares: configuration, data, optimizer, loop, checkpoints, records."""
