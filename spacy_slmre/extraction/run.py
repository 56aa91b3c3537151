"""An extraction run: resume it, compute the missing shards, publish the output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO
from uuid import uuid4

from spacy.language import Language

from spacy_slmre.extraction.inputs import ExtractionError
from spacy_slmre.extraction.outputs import ExtractionResult, check_suffix
from spacy_slmre.extraction.shards import Shard, ShardFolder, ShardResult, check_complete
from spacy_slmre.extraction.worker import ExtractionJob, ShardWorker
from spacy_slmre.util.run_folder import Kind, RunFolder

Engine = Callable[[ExtractionJob, Sequence[int]], Iterable[ShardResult]]
"""Computes shards of a job by number and yields the results of those that succeeded, in any order."""


@dataclass
class ExtractionCounts:
    """Counts of all finished shards: documents, failed documents and relations."""

    documents: int = 0
    failed: int = 0
    relations: int = 0

    def add(self, result: ShardResult) -> None:
        """Add the counts of a shard."""
        self.documents += result.documents
        self.failed += result.failed
        self.relations += result.relations


def extract_corpus(
    job: ExtractionJob,
    run_key: Mapping[str, Any],
    engine: Engine,
    *,
    inputs: Sequence[str] = (),
    stdin: BinaryIO | None = None,
    overwrite: bool = False,
    progress: Callable[[ExtractionCounts, int | None], None] = lambda counts, total: None,
    log: Callable[[str], None] = print,
) -> ExtractionCounts:
    """Extract relations from all inputs of a job into one output.

    Args:
        job: The job.
        run_key: Everything that determines the output, except standard input. An interrupted run with the same key is
            resumed.
        engine: Computes the shards, for example `compute_in_process`.
        inputs: Other files and folders that are read, such as the pipeline, which the output must not replace.
        stdin: Standard input, to be copied to a file first, for engines that cannot read a stream.
        overwrite: Discard partial results and replace an existing output.
        progress: Called at the start and after each shard with the counts so far and the total number of documents,
            which is None for a stream.
        log: Reports progress.

    Raises:
        OutputError: The output exists or cannot be written, or an interrupted run has another key.
        ExtractionError: An input is damaged, or a shard could not be computed.
    """
    check_suffix(job.output)
    # Standard input differs in each run.
    key = {**run_key, "standard input": uuid4().hex} if job.reads_stdin else run_key
    kind: Kind = "folder" if job.output.suffix == ".spacy" else "file"
    sources = [*inputs, *(path for path, _ in job.inputs)]
    with RunFolder(job.output, inputs=sources, kind=kind, overwrite=overwrite) as run:
        if (record := run.completed(key)) is not None:
            check_complete(job.output, record)
            log(f"{job.output} is already complete.")
            return ExtractionCounts(**record["counts"])
        if run.begin(run_key):
            if job.reads_stdin:
                log("Standard input cannot be read again, so the interrupted run starts over.")
                run.discard()
                run.begin(run_key)
            else:
                log("Resuming an interrupted run.")
        with run.explain_disk_errors():
            folder = ShardFolder(job.output)
            if job.reads_stdin and stdin is not None:
                job = replace(job, stdin=folder.copy_stdin(stdin))
            counts, finished = _finish_shards(job, folder, engine, progress)
            run.publish(folder.join(finished, {"key": key, "counts": asdict(counts)}))
    return counts


def _finish_shards(
    job: ExtractionJob, folder: ShardFolder, engine: Engine, progress: Callable[[ExtractionCounts, int | None], None]
) -> tuple[ExtractionCounts, dict[int, ShardResult]]:
    folder.prepare()
    if not job.is_stream:
        folder.plan(job.inputs, job.shard_size, job.text_field, job.stdin)
    finished, counts = folder.finished(), ExtractionCounts()
    for result in finished.values():
        counts.add(result)
    total = None if job.is_stream else sum(shard.documents for shard in folder.shards)
    missing = [shard.number for shard in folder.shards if shard.number not in finished]
    progress(counts, total)
    for result in engine(job, missing) if missing or job.is_stream else ():
        folder.record(result)
        finished[result.shard] = result
        counts.add(result)
        progress(counts, total)
    if lost := [shard for shard in folder.shards if shard.number not in finished]:
        raise _lost_shards(job, lost, len(folder.shards))
    return counts, finished


def compute_in_process(
    job: ExtractionJob,
    shards: Sequence[int],
    *,
    nlp: Language,
    stdin: BinaryIO,
    on_result: Callable[[ExtractionResult], None] | None = None,
) -> Iterator[ShardResult]:
    """Compute shards in this process, one after the other.

    Args:
        job: The job.
        shards: Shard numbers. Ignored if the job reads standard input, which is split while it is read.
        nlp: The pipeline.
        stdin: Stream for standard input.
        on_result: Called with the result of each document.
    """
    worker = ShardWorker(job, nlp, on_result)
    if job.is_stream:
        yield from worker.compute_stream(stdin)
        return
    for number in shards:
        if (result := worker.compute(number)) is not None:
            yield result


def _lost_shards(job: ExtractionJob, lost: Sequence[Shard], total: int) -> ExtractionError:
    places = (
        f"{shard.documents} from item {shard.start.items + 1} of {job.inputs[shard.start.input][0]}" for shard in lost
    )
    return ExtractionError(
        f"{len(lost)} of {total} shards crashed their worker at every attempt, for example because memory ran out. "
        f"Their documents: {'; '.join(places)}. All other results are kept. Repeat the command to retry these shards; "
        "a smaller batch size or more memory per worker may help."
    )
