"""A small causal language model that scores labels in packed prompt trees."""
