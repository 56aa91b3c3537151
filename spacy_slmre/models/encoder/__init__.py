"""An encoder with a label head, the alternative to a small language model."""
