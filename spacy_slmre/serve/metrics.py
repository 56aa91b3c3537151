"""What a service counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from spacy_slmre.documents import RelationDocument


class ServiceMetrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, CPU time and open files
        self.requests = Counter(
            "slmre_requests", "Answered requests for relations.", ["status"], registry=self.registry
        )
        self.seconds = Histogram(
            "slmre_request_seconds",
            "Time from a request for relations to its answer.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
            registry=self.registry,
        )
        self.texts = Counter("slmre_texts", "Processed texts.", ["outcome"], registry=self.registry)
        self.relations = Counter("slmre_relations", "Relations found.", registry=self.registry)
        self.batch = Histogram(
            "slmre_batch_texts",
            "Texts that were processed together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.waiting = Gauge("slmre_waiting_texts", "Texts that wait or are processed.", registry=self.registry)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        if path == "/relations":
            self.requests.labels(str(status)).inc()
            self.seconds.observe(seconds)

    def count_batch(self, documents: list[RelationDocument]) -> None:
        """Count the documents of a batch."""
        self.batch.observe(len(documents))
        for document in documents:
            self.texts.labels("failed" if document.error is not None else "ok").inc()
            self.relations.inc(len(document.relations))
