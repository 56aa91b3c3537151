from tests.corpus.conftest import data, demo, nlp, write
from tests.training.conftest import config_file, write_corpus

__all__ = ["config_file", "data", "demo", "nlp", "write", "write_corpus"]
