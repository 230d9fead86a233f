"""Benchmarks: ours and a peer's in turn, in one process, as ratios. `make bench` runs them."""
