"""Relation extraction with large language models, as a task and models for spacy-llm."""
