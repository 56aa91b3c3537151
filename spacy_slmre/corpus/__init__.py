"""Corpora: formats, conversion to `.spacy` files, readers for training, and checks."""
