"""Evaluate a pipeline, or predictions from a file, on the gold pairs of a corpus."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spacy.language import Language

from spacy_slmre.corpus.readers import batch_by_pairs
from spacy_slmre.evaluation.external import check_answers, read_answers
from spacy_slmre.evaluation.facts import join_pairs
from spacy_slmre.evaluation.gold import EvaluationPair, GoldCorpus, make_evaluation_pairs
from spacy_slmre.evaluation.runs import EvaluationError, EvaluationRun, Prediction, RunWriter, read_run
from spacy_slmre.evaluation.scoring import score_predictions
from spacy_slmre.evaluation.systems import Answer, EvaluationSettings, make_system
from spacy_slmre.label_parser import LabelParser
from spacy_slmre.pipeline.fingerprint import pipeline_fingerprint
from spacy_slmre.schema import NEGATIVE_LABEL, LabelSchema
from spacy_slmre.util.io import file_hash
from spacy_slmre.util.run_folder import RunFolder
from spacy_slmre.util.system import hardware, peak_memory, reset_peak_memory, versions

FACTS_SUFFIX = "-facts"
"""Added to the name of a corpus, and to that of the run folder, if facts are evaluated."""
BATCH_PAIRS = 256
"""Number of pairs after which results are written."""

Log = Callable[[str], None]
Progress = Callable[[int], None]
"""Called with the number of documents that finished since the last call."""


def evaluate_corpus(
    nlp: Language,
    source: str,
    corpus: GoldCorpus,
    output: Path,
    settings: EvaluationSettings | None = None,
    *,
    overwrite: bool = False,
    overwrite_changed: bool = False,
    progress: Progress = lambda docs: None,
    log: Log = print,
) -> EvaluationRun:
    """Evaluate a pipeline's relation component on gold entities, or resume an interrupted run.

    Args:
        nlp: The pipeline; only its relation component is run, and its labels and prompt are changed in place.
        source: Folder or package that it was loaded from.
        corpus: The corpus, read with this pipeline.
        output: Folder for the run.
        settings: How to evaluate.
        overwrite: Discard partial results and replace an existing run.
        overwrite_changed: Do so only if the pipeline, the corpus or a setting has changed.
        progress: Receives progress.
        log: Receives messages.

    Raises:
        EvaluationError: A setting does not fit the pipeline, or a remote service failed.
        OutputError: The output belongs to another run.
        ValueError: The pipeline cannot be used.
    """
    settings = settings or EvaluationSettings()
    key = {"pipeline": pipeline_fingerprint(nlp, source), "corpus": corpus.sha256, **asdict(settings)}
    inputs: list[str | Path] = [source, corpus.path]
    with RunFolder(
        output, inputs=inputs, kind="folder", overwrite=overwrite, overwrite_changed=overwrite_changed
    ) as run_folder:
        if run_folder.completed(key) is not None:
            log(f"{output} is already complete; use overwrite to evaluate again.")
            return read_run(output)
        reset_peak_memory()
        start = time.perf_counter()
        system = make_system(nlp, settings, corpus.format)
        load_seconds = time.perf_counter() - start
        _warn_unknown_labels(corpus, system.schema, log)
        writer = RunWriter(run_folder, key)
        if writer.totals.docs:
            log(f"Resuming after {writer.totals.docs:,} documents.")
            progress(writer.totals.docs)
        if system.estimate is not None:
            log(system.estimate([example.predicted for example in corpus.examples[writer.totals.docs :]]))
        for batch in batch_by_pairs(BATCH_PAIRS)(corpus.examples[writer.totals.docs :]):
            docs = [example.predicted for example in batch]
            before, start = Counter(system.usage()), time.perf_counter()
            answers = system.predict(docs)
            seconds = time.perf_counter() - start
            usage = Counter(system.usage())
            usage.subtract(before)
            _check_service(usage, writer)
            predictions, tokens = [], 0
            for number, (example, doc_answers) in enumerate(zip(batch, answers, strict=True), writer.totals.docs):
                proposed = system.candidates(example.predicted, system.schema).pairs
                pairs = make_evaluation_pairs(example, number, system.schema, proposed, system.attr)
                tokens += system.count_tokens([pair.instance for pair in pairs])
                if settings.level == "facts":
                    predictions += join_pairs(example.reference, pairs, doc_answers, _prediction)
                else:
                    predictions += [_prediction(pair, doc_answers.get(pair.key)) for pair in pairs]
            truncated = sum(answer.truncated for doc_answers in answers for answer in doc_answers.values())
            writer.add(predictions, len(docs), seconds, truncated, tokens, usage)
            progress(len(docs))
        info = {
            **system.info,
            "level": settings.level,
            "system": settings.name or system.info["system"],
            "pipeline": source,
            "load_seconds": load_seconds,
            "peak_memory_gb": peak_memory(system.device),
            "usage": dict(writer.totals.usage) or None,
            "cost": system.cost(writer.totals.usage),
            "settings": asdict(settings),
            "environment": {"machine": hardware(system.device), "versions": versions()},
        }
        return _finish(writer, corpus, system.schema, info)


def evaluate_answers(
    path: Path,
    corpus: GoldCorpus,
    output: Path,
    *,
    name: str = "",
    allow_missing: bool = False,
    overwrite: bool = False,
    log: Log = print,
) -> EvaluationRun:
    """Score the answers of another program.

    Args:
        path: File with the answers; see `read_answers`.
        corpus: The corpus.
        output: Folder for the run.
        name: Name of the system in reports; by default the name of the file.
        allow_missing: Count pairs without an answer as unanswered instead of raising an error.
        overwrite: Discard partial results and replace an existing run.
        log: Receives messages.

    Raises:
        EvaluationError: The answers cannot be read, or do not belong to this corpus.
        OutputError: The output belongs to another run.
    """
    answers = read_answers(path)
    key = {"answers": file_hash(path), "corpus": corpus.sha256, "name": name, "limit": corpus.limit}
    with RunFolder(output, inputs=[path, corpus.path], kind="folder", overwrite=overwrite) as run_folder:
        if run_folder.completed(key) is not None:
            log(f"{output} is already complete; use overwrite to evaluate again.")
            return read_run(output)
        schema = corpus.schema
        parse = LabelParser(schema).parse
        pairs = list(corpus.pairs(schema))
        check_answers(path, answers, [pair.id for pair in pairs], corpus.path, allow_missing)
        predictions = []
        for pair in pairs:
            answer = None
            if pair.id in answers:
                text, score = answers[pair.id]
                label = parse(text)
                top = () if score is None else ((label or schema.negative_label or NEGATIVE_LABEL, score),)
                answer = Answer(label, top, text)
            predictions.append(_prediction(pair, answer))
        writer = RunWriter(run_folder, key)
        if not writer.totals.docs:
            writer.add(predictions, len(corpus.examples), 0.0)
        info = {
            "system": name or path.stem,
            "kind": "external",
            "pipeline": str(path),
            **dict.fromkeys(("regime", "style", "prompt", "decoding"), ""),
            **dict.fromkeys(("params", "load_seconds", "peak_memory_gb", "cost")),
            "dapt": False,
            "settings": {"name": name, "limit": corpus.limit, "allow_missing": allow_missing},
            "environment": {"machine": "", "versions": versions()},
        }
        return _finish(writer, corpus, schema, info)


def _prediction(pair: EvaluationPair, answer: Answer | None) -> Prediction:
    head, tail = pair.instance.head_mention, pair.instance.tail_mention
    given = answer or Answer(None)
    return Prediction(
        id=pair.id,
        doc=pair.doc,
        text=pair.instance.context.text,
        head=(head.start, head.end),
        tail=(tail.start, tail.end),
        head_type=head.type,
        tail_type=tail.type,
        gold=pair.gold,
        predicted=given.predicted,
        score=round(given.top[0][1], 6) if given.top else None,
        top=tuple((label, round(score, 6)) for label, score in given.top),
        answer=given.text,
        answered=answer is not None,
        labels=given.labels,
        opposite=pair.opposite,
    )


def _finish(writer: RunWriter, corpus: GoldCorpus, schema: LabelSchema, info: Mapping[str, Any]) -> EvaluationRun:
    """Score the predictions and publish the run."""
    predictions, totals = writer.predictions(), writer.totals
    metrics = score_predictions(
        predictions, schema.names, schema.negative_label, inverse_of=schema.inverse_of, truncated=totals.truncated
    )
    data = {
        # Scores of facts cannot be compared with those of relations.
        "corpus": corpus.name + (FACTS_SUFFIX if info.get("level") == "facts" else ""),
        "corpus_format": None if corpus.format is None else corpus.format.name,
        "split": corpus.split,
        "limit": corpus.limit or None,
        "corpus_path": str(corpus.path),
        "data_sha256": corpus.sha256,
        "labels": list(schema.names),
        "negative_label": schema.negative_label,
        "inverse_of": schema.inverse_of,
        "pairs": len(predictions),
        # Cached answers would distort the speed.
        "seconds": 0.0 if totals.usage["cached"] else totals.seconds,
        "tokens": totals.tokens or totals.usage["input_tokens"] or None,
    }
    return writer.finish({**info, **data}, metrics)


def _check_service(usage: Counter[str], writer: RunWriter) -> None:
    """Raise an error if a remote service fails, because its failures must not count as the model's errors."""
    if usage["unreachable"]:
        problem = f"{usage['unreachable']:,} requests failed after all retries"
    elif usage["failed"] and not usage["requests"] + writer.totals.usage["requests"] + usage["cached"]:
        problem = f"the service refused all {usage['failed']:,} requests"
    else:
        return
    raise EvaluationError(
        f"The evaluation stopped: {problem} (see the warnings above). {writer.totals.docs:,} documents are "
        "finished; repeat the command to resume."
    )


def _warn_unknown_labels(corpus: GoldCorpus, schema: LabelSchema, log: Log) -> None:
    """Warn about gold labels that the system cannot predict."""
    gold = [label for pair in corpus.pairs(schema) for label in pair.gold]
    unknown = [label for label in gold if label not in schema.index]
    if unknown:
        names = sorted(set(unknown))
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        log(
            f"Warning: {len(names)} labels of the corpus are not in the label set ({shown}), so {len(unknown):,} of "
            f"{len(gold):,} relations cannot be found: recall is at most {1 - len(unknown) / len(gold):.3f}."
        )
