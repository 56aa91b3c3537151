"""Tuning as a whole: from a config and corpora to a pipeline with an adapter."""
