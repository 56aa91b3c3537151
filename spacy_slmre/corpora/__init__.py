"""Benchmarks as spaCy corpora."""
