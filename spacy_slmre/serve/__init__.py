"""The local page that runs a pipeline on a text."""
