"""A relation extraction task and chat models for spacy-llm."""
