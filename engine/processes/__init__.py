"""The processes of a program: their start and end, what they exchange, signals."""
