from __future__ import annotations

from pathlib import Path

import pytest

from spacy_slmre.extraction import ray_engine
from spacy_slmre.extraction.ray_engine import RayWorker, Workers, running_ray
from spacy_slmre.extraction.shard_work import Job
from spacy_slmre.extraction.sources import ExtractionError

LAPTOP = [{"CPU": 8.0}]
CLUSTER = [{"CPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 4.0}, {}]


@pytest.mark.parametrize(
    ("asked", "nodes", "settled"),
    [
        (Workers(), LAPTOP, Workers(2, 2, 4, 0)),
        (Workers(), [{"CPU": 1.0}], Workers(1, 1, 1, 0)),
        (Workers.parse("3"), LAPTOP, Workers(3, 3, 2, 0)),
        (Workers.parse("1:4"), LAPTOP, Workers(1, 4, 2, 0)),
        (Workers.parse("12"), LAPTOP, Workers(12, 12, 1, 0)),
        (Workers.parse(None, cpus=1), LAPTOP, Workers(8, 8, 1, 0)),
        # One for each GPU; without GPUs, as many as fit machine by machine.
        (Workers(), CLUSTER, Workers(2, 2, 4, 1)),
        (Workers(gpus=0.5), CLUSTER, Workers(4, 4, 4, 0.5)),
        (Workers(gpus=0), CLUSTER, Workers(6, 6, 4, 0)),
        # No worker is larger than the largest machine.
        (Workers.parse("1", gpus=0), CLUSTER, Workers(1, 1, 16, 0)),
    ],
)
def test_workers_share_what_there_is(asked: Workers, nodes: list, settled: Workers) -> None:
    assert asked.settled(nodes) == settled


@pytest.mark.parametrize(
    ("number", "cpus", "gpus", "message"),
    [
        ("0", None, None, '--workers "0"'),
        ("4:2", None, None, "fewest and the most"),
        ("many", None, None, '--workers "many"'),
        ("2", 0, None, "--worker-cpus 0"),
        ("2", None, -1.0, "--worker-gpus -1"),
        ("2", None, 1.5, "a part of a GPU"),
    ],
)
def test_workers_that_cannot_be(number: str, cpus: int, gpus: float, message: str) -> None:
    with pytest.raises(ExtractionError, match=message):
        Workers.parse(number, cpus, gpus)


def test_absent_ray_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    with pytest.raises(ExtractionError, match=r"pip install 'spacy-slmre\[ray\]'"):
        ray_engine.check_ray()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://localhost:10001"])
def test_address_without_a_cluster_is_told_at_once(address: str) -> None:
    with pytest.raises(ExtractionError, match="No Ray cluster answers"), running_ray(Workers(), address):
        pass


def test_problem_of_a_worker_is_told_with_its_first_shard(tmp_path: Path) -> None:
    job = Job(str(tmp_path / "absent"), Path("out.jsonl"), lambda: None, "relations", "m", 4)
    (note,) = RayWorker(job)({"shard": [3]})["note"]
    assert "all machines find them" in note
