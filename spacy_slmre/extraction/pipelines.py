"""Load the pipeline of an extraction, and find its relation component."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confection import ConfigValidationError

from spacy_slmre.documents import RelationDocument
from spacy_slmre.util.errors import describe

if TYPE_CHECKING:
    from spacy.language import Language

    from spacy_slmre.extraction.inputs import InputDocument
    from spacy_slmre.extraction.outputs import ExtractionResult
    from spacy_slmre.schema import LabelSchema


def load_pipeline(name: str, *, code: Path | None = None, gpu_id: int | None = None) -> Language:
    """Load a pipeline from a package or folder, or create it from a config (.cfg).

    Args:
        name: Package, folder or config file.
        code: Python file with registered functions, which is imported first.
        gpu_id: GPU for all components, or -1 for the CPU; None keeps the pipeline's own settings.

    Raises:
        ValueError: The pipeline, the code or the GPU does not exist, or the config is invalid.
    """
    import spacy
    from spacy import util

    if gpu_id is not None:
        select_gpu(gpu_id)
    import_code(code)
    try:
        if name.endswith(".cfg") and Path(name).is_file():
            return util.load_model_from_config(util.load_config(name), auto_fill=True)
        return spacy.load(name)
    except ConfigValidationError as error:
        raise ValueError(f"The config of {name} does not describe a valid pipeline: {error}") from error
    except OSError as error:
        if Path(name).exists():
            raise ValueError(f'The pipeline in "{name}" is incomplete or damaged: {error}') from error
        raise ValueError(
            f'The pipeline "{name}" is neither an installed package nor a folder. Install a package, for '
            "example with `python -m spacy download en_core_web_sm`, or use the folder of a saved pipeline."
        ) from error
    except Exception as error:  # spaCy, and the components of other packages, raise many kinds for damaged files
        cause = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f'The pipeline "{name}" cannot be loaded: {cause}') from error


def import_code(code: Path | None) -> None:
    """Import a Python file with registered functions, if there is one. Raises ValueError if that fails."""
    from spacy import util

    if code is None:
        return
    if not code.is_file():
        raise ValueError(f"The code file {code} does not exist.")
    if code.suffix != ".py":
        raise ValueError(f"The code file {code} must end in .py.")
    try:
        util.import_file("python_code", code)
    except Exception as error:  # whatever the file raises
        raise ValueError(f"The code file {code} cannot be imported: {type(error).__name__}: {error}") from error


def select_gpu(gpu_id: int) -> None:
    """Use this GPU wherever a device is "auto" or "cuda", or with -1 none. Raises ValueError if it does not exist."""
    import torch
    from thinc.util import has_cupy_gpu, require_gpu

    if gpu_id < 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif gpu_id >= (count := torch.cuda.device_count()):
        raise ValueError(f"GPU {gpu_id} is not available: PyTorch finds {count} GPUs.")
    else:
        torch.cuda.set_device(gpu_id)
        if has_cupy_gpu:  # for spaCy's own components
            require_gpu(gpu_id)


@dataclass(frozen=True)
class ExtractionPipeline:
    """A pipeline with loaded weights, the name of its relation component, and the attribute of the relations."""

    nlp: Language
    component: str
    attr: str

    @property
    def model_name(self) -> str:
        """The pipeline's name, version and component, which are recorded with each document."""
        meta = self.nlp.meta
        return f"{meta['lang']}_{meta['name']} {meta['version']} {self.component}"

    @property
    def pipe(self) -> Any:
        """The relation component."""
        return self.nlp.get_pipe(self.component)

    @property
    def can_change(self) -> bool:
        """Whether texts can have labels and a threshold of their own."""
        from spacy_slmre.pipeline.relation_extractor import RelationExtractor

        return isinstance(self.pipe, RelationExtractor)

    def check_changes(self, labels: Any, threshold: float | None) -> None:
        """Raise ValueError if labels or a threshold are given, but the component cannot change them."""
        if not self.can_change and not (labels is None and threshold is None):
            raise ValueError(f'The component "{self.component}" has fixed labels and no thresholds: omit both.')

    def make_schema(self, labels: Any = None) -> LabelSchema:
        """Return the labels of the component or, prepared for use, other ones. Raises ValueError if they are wrong."""
        self.check_changes(labels, None)
        if not self.can_change:
            return self.pipe.task.schema
        try:
            return self.pipe.schema if labels is None else self.pipe.make_schema(labels)
        except TypeError as error:
            raise ValueError(str(error)) from error

    def use_threshold(self, threshold: float | None) -> AbstractContextManager[None]:
        """Replace all thresholds for a while; None keeps them. Raises ValueError if that is not possible."""
        self.check_changes(None, threshold)
        return self.pipe.use_threshold(threshold) if self.can_change else nullcontext()

    def extract(
        self, inputs: Iterable[InputDocument], *, threshold: float | None = None, batch_size: int = 64
    ) -> list[RelationDocument]:
        """Run a few documents through the pipeline, and forget their new words.

        Args:
            inputs: The documents.
            threshold: Minimum probability of a relation, instead of the pipeline's own.
            batch_size: Documents per batch.

        Returns:
            One document for each; if the pipeline failed on it, it has an `error`.

        Raises:
            ServiceError: A remote service is unavailable.
        """
        from spacy_slmre.extraction.worker import extract_documents, forget_words

        with forget_words(self.nlp), self.use_threshold(threshold):
            results = extract_documents(self.nlp, inputs, batch_size=batch_size, model_name=self.model_name)
            return [self._make_document(result) for result in results]

    def _make_document(self, result: ExtractionResult) -> RelationDocument:
        try:
            return result.to_document(self.attr)
        except Exception as error:  # what components of other packages write can be malformed
            return RelationDocument(result.id, "", error=describe(error))


def load_extraction_pipeline(
    name: str, *, code: Path | None = None, gpu_id: int | None = None, log: Callable[[str], None] = warnings.warn
) -> ExtractionPipeline:
    """Load a pipeline (see `load_pipeline`) with the weights of its last relation component.

    If it has no relation component, `slm_relations` is added. `log` is called with a message then, and if it has
    several.

    Raises:
        ValueError: The pipeline cannot be loaded, or its weights or an API key are missing.
    """
    nlp = load_pipeline(name, code=code, gpu_id=gpu_id)
    found = _find_relation_components(nlp)
    if len(found) > 1:
        log(f'"{name}" has several relation components, {", ".join(found)}: using the relations of the last one.')
    if not found:
        log(f'"{name}" has no relation component: adding slm_relations with default settings.')
        nlp.add_pipe("slm_relations")
    return prepare_extraction(nlp)


def prepare_extraction(nlp: Language) -> ExtractionPipeline:
    """Load the weights of the last relation component of a pipeline, and of other components that ask a model.

    Raises:
        ValueError: There is no relation component, or weights or an API key are missing.
    """
    from spacy_slmre.llm.component import load_llm_component
    from spacy_slmre.pipeline.components import get_relation_extractor
    from spacy_slmre.pipeline.question_pipe import QuestionPipe

    found = _find_relation_components(nlp)
    component = found[-1] if found else get_relation_extractor(nlp)[0]  # raises an error
    pipe: Any = nlp.get_pipe(component)
    for _, other in nlp.pipeline:
        if isinstance(other, QuestionPipe):
            other.load()
    if hasattr(pipe, "task"):
        load_llm_component(pipe)
        return ExtractionPipeline(nlp, component, pipe.task.attr)
    pipe.load()
    return ExtractionPipeline(nlp, component, pipe.attr)


def _find_relation_components(nlp: Language) -> list[str]:
    """Return the relation components or, if there are none, the LLM components with our task."""
    from spacy_slmre.llm.component import get_llm_components
    from spacy_slmre.pipeline.relation_extractor import RelationExtractor

    extractors = [name for name, pipe in nlp.pipeline if isinstance(pipe, RelationExtractor)]
    return extractors or [*get_llm_components(nlp)]


def extraction_key(name: str, nlp: Language, code: Path | None, inputs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the part of a run key that tells whether a pipeline or its inputs have changed.

    Args:
        name: Package or folder of the pipeline.
        nlp: The pipeline.
        code: Python file with registered functions.
        inputs: Files with their formats.
    """
    from spacy_slmre.pipeline.fingerprint import pipeline_fingerprint
    from spacy_slmre.util.io import file_hash

    return {
        "pipeline": [pipeline_fingerprint(nlp, name), None if code is None else file_hash(code)],
        "inputs": [[path, format, _state(path)] for path, format in inputs],
    }


def _state(path: str) -> list[int] | None:
    """Return the size and the modification time of a file, to detect changes."""
    try:
        state = Path(path).stat()
    except OSError:  # standard input, or a file that has vanished
        return None
    return [state.st_size, state.st_mtime_ns]
