"""Models that label relation instances: a small causal language model and an encoder."""
