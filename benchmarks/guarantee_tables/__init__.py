"""The tables of `benchmarks/guarantees.py`, one a file; each has `run(options) -> list[Figure]`."""
