"""One worker of many: a pipeline that computes shards, wherever it runs."""

from __future__ import annotations

import io
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from spacy.language import Language

from spacy_slmre.extraction.running import extract
from spacy_slmre.extraction.shards import ShardFolder, Tally
from spacy_slmre.extraction.sources import ExtractionError, read_sources
from spacy_slmre.extraction.writers import make_writer

MOST_ATTEMPTS = 3
"""How often a shard may take its worker down before it is given up."""


@dataclass(frozen=True)
class Job:
    """What workers need to know, as they may be on other machines.

    Attributes:
        folder: The working directory of the command, which relative paths begin at.
        output: What is made.
        load: Gives the pipeline, ready to work.
        attr: The attribute that holds the relations.
        model: What finds the relations, in one line.
        batch_size: Documents a batch.
        threads: Threads that torch may use in a worker; None leaves it to torch.
        gpu: Whether a worker may see GPUs.
    """

    folder: str
    output: Path
    load: Callable[[], Language]
    attr: str
    model: str
    batch_size: int
    threads: int | None = None
    gpu: bool = True


class ShardWorker:
    """Computes shards with one pipeline in memory.

    Args:
        job: What is to be done.

    Raises:
        ExtractionError: The working directory or the folder of shards is not there on this machine.
        ValueError: The pipeline cannot be loaded here.
    """

    def __init__(self, job: Job) -> None:
        if not job.gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if job.threads is not None:
            torch.set_num_threads(job.threads)
        try:
            os.chdir(job.folder)
            self.folder = ShardFolder(job.output)
            self.manifest, self.shards = self.folder.manifest, self.folder.shards
        except OSError as error:
            raise ExtractionError(
                f"The machine {socket.gethostname()} cannot read {error.filename} ({error.strerror}): "
                "pipeline, inputs and output must lie where all machines find them at the same place."
            ) from error
        self.job = job
        self.nlp = job.load()

    def compute(self, number: int) -> Tally | None:
        """Compute a shard and give its results their name.

        Nothing is left of an attempt that is cut off but its folder, which counts: None says that the shard
        has taken down its worker too often.

        Raises:
            ExtractionError: The inputs are no longer what was planned.
            ServiceError: A service that the pipeline asks lets no document through.
        """
        if len(list(self.folder.attempts.glob(f"{number:05}.*"))) >= MOST_ATTEMPTS:
            return None
        shard, suffix = self.shards[number], self.job.output.suffix
        prefix = f"{number:05}.{socket.gethostname()}.{os.getpid()}."
        attempt = Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder.attempts))
        text_field, id_field = self.manifest["fields"]
        nothing = io.BytesIO()  # standard input is no input here
        sources = read_sources(
            self.manifest["inputs"], self.nlp, nothing, text_field, id_field, start=shard.start
        )
        writer = make_writer(attempt / f"shard{suffix}", self.job.attr, self.manifest["size"])
        relations = 0
        try:
            for result in extract(
                self.nlp,
                islice(sources, shard.documents),
                batch_size=self.job.batch_size,
                model=self.job.model,
            ):
                writer.write(result)
                relations += len(getattr(result.doc._, self.job.attr)) if result.doc is not None else 0
            if writer.written != shard.documents:
                raise ExtractionError(
                    f"Shard {number} had {shard.documents} documents when the run began, and now has "
                    f"{writer.written}: the inputs have changed. Give --restart to begin anew."
                )
            writer.finish()
            size = self.folder.keep(number, writer.output)
        finally:
            # Also after an error, which has been told: only a worker that was killed leaves its folder.
            writer.close()
            shutil.rmtree(attempt, ignore_errors=True)
        return Tally(number, writer.written, writer.failed, relations, size)
