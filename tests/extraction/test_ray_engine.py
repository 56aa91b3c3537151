from __future__ import annotations

from pathlib import Path

import pytest

from spacy_slmre.extraction.inputs import ExtractionError
from spacy_slmre.extraction.ray_engine import ShardActor, WorkerPool, compute_on_ray
from spacy_slmre.extraction.worker import ExtractionJob

LAPTOP = [{"CPU": 8.0}]
CLUSTER = [{"CPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 4.0}, {}]
JOB = ExtractionJob(Path("out.jsonl"), [("in.txt", "txt")], lambda: None, "m", "relations")


@pytest.mark.parametrize(
    ("requested", "nodes", "resolved"),
    [
        (WorkerPool(), LAPTOP, WorkerPool(2, 2, 4, 0)),
        (WorkerPool(), [{"CPU": 1.0}], WorkerPool(1, 1, 1, 0)),
        (WorkerPool.parse("3"), LAPTOP, WorkerPool(3, 3, 2, 0)),
        (WorkerPool.parse("1:4"), LAPTOP, WorkerPool(1, 4, 2, 0)),
        (WorkerPool.parse("12"), LAPTOP, WorkerPool(12, 12, 1, 0)),
        (WorkerPool.parse(None, cpus=1), LAPTOP, WorkerPool(8, 8, 1, 0)),
        # One per GPU; without GPUs, as many as fit on each machine.
        (WorkerPool(), CLUSTER, WorkerPool(2, 2, 4, 1)),
        (WorkerPool(gpus=0.5), CLUSTER, WorkerPool(4, 4, 4, 0.5)),
        (WorkerPool(gpus=0), CLUSTER, WorkerPool(6, 6, 4, 0)),
        # No worker is larger than the largest machine.
        (WorkerPool.parse("1", gpus=0), CLUSTER, WorkerPool(1, 1, 16, 0)),
    ],
)
def test_workers_share_the_available_resources(requested: WorkerPool, nodes: list, resolved: WorkerPool) -> None:
    assert requested.resolve(nodes) == resolved


@pytest.mark.parametrize(
    ("workers", "cpus", "gpus", "message"),
    [
        ("0", None, None, 'workers must be .* not "0"'),
        ("4:2", None, None, 'range MIN:MAX .* not "4:2"'),
        ("many", None, None, 'workers must be a number .* not "many"'),
        ("2", 0, None, "worker_cpus must be at least 1, not 0"),
        ("2", None, -1.0, "worker_gpus must be .* not -1"),
        ("2", None, 1.5, "fraction of one GPU"),
    ],
)
def test_impossible_workers_are_refused(workers: str, cpus: int, gpus: float, message: str) -> None:
    with pytest.raises(ExtractionError, match=message):
        WorkerPool.parse(workers, cpus, gpus)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://localhost:10001"])
def test_address_without_a_cluster_fails_at_once(address: str) -> None:
    with pytest.raises(ExtractionError, match="No Ray cluster answers"):
        next(compute_on_ray(JOB, [0], pool=WorkerPool(), address=address))


def test_worker_on_a_machine_without_the_files_reports_it_with_its_first_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # restored afterwards: the actor changes the working directory
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for folder in (tmp_path / "absent", tmp_path):
        actor = ShardActor(JOB, str(folder), threads=1, use_gpu=False)
        (outcome,) = actor({"shard": [3]})["outcome"]
        assert "must have the same path on all machines" in outcome
