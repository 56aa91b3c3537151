"""Relations by large language models that were not tuned for them, through spacy-llm."""
