"""Studies: our own questions of small networks, answered with seeds."""
