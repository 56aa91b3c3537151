"""Everything behind `slmre tune`: config, training data, trainer, output."""
