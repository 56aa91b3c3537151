from tests.corpus.conftest import data, demo, nlp, write

__all__ = ["data", "demo", "nlp", "write"]
