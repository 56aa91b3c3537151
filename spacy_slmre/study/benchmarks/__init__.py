"""The benchmarks of the study: cards and converters."""
