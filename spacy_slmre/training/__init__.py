"""The implementation of `slmre tune`: config, training data, trainer and output."""
