"""Corpora: formats and their conversion to `.spacy` files, readers for training, checks."""
