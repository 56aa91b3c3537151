"""The parts of `benchmarks/inference.py`."""
