"""Score pipelines on gold pairs, with confidence intervals, significance tests and a report."""
