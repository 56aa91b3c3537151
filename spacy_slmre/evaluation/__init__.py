"""Evaluation: systems on benchmarks, by the study's rules, with the uncertainty that belongs to scores."""
