from __future__ import annotations

import errno
import json

import pytest
from spacy.tokens import DocBin

from spacy_slmre.corpus.conversion import convert, summary_path
from spacy_slmre.corpus.docbin import corpus_files, read_docs
from spacy_slmre.corpus.formats import CorpusFormat
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.study.benchmarks.card import get_benchmark
from spacy_slmre.util.errors import OutputError
from spacy_slmre.util.io import file_hash

ROWS = [
    {
        "text": f"Ann {n} of Oslo , Norway .",
        "triple_list": [
            ["Norway", "/location/country/capital", "Oslo"],
            ["Norway", "/location/location/contains", "Oslo"],
            [f"Ann {n}", "/people/person/place_lived", "Oslo"],
            [f"Ann {n}", "/people/person/place_lived", "Rome"],
        ],
    }
    for n in range(12)
]


@pytest.fixture
def source(write):
    return write("test.json", json.dumps(ROWS))


def test_a_conversion_is_summarized(source, tmp_path):
    output = tmp_path / "out" / "test.spacy"
    seen = []
    summary = convert(get_benchmark("nyt"), source, output, split="test", progress=seen.append)
    assert summary == json.loads(summary_path(output).read_text())
    assert summary_path(output).name == "test.summary.json"
    assert {key: summary[key] for key in ("documents", "instances", "positives", "negatives", "pairs")} == {
        "documents": 12,
        "instances": 36,
        "positives": 36,
        "negatives": 0,
        "pairs": 24,
    }
    assert summary["multi_label_pairs"] == 12 and summary["ceiling"] == round(24 / 36, 4)
    assert summary["labels"]["/people/person/place_lived"] == 12
    assert summary["rejects"] == {"argument not in the text": 12}
    assert summary["longest"] == {"tokens": 7, "characters": 25, "id": "test-11"}
    assert summary["official_instances"] == 8616
    assert summary["files"] == [{"name": "test.spacy", "sha256": file_hash(output)}]


def test_rejects_are_listed(source, tmp_path):
    convert(get_benchmark("nyt"), source, tmp_path / "t.spacy", split="test", rejects=tmp_path / "r" / "r.jsonl")
    rejects = [json.loads(line) for line in (tmp_path / "r" / "r.jsonl").read_text().splitlines()]
    assert len(rejects) == 12
    assert rejects[0] == {
        "file": str(source),
        "line": 1,
        "id": "test-0",
        "reason": "argument not in the text",
        "detail": "(Ann 0, /people/person/place_lived, Rome): the argument 'Rome' does not occur in the text",
    }


def test_a_large_output_is_a_folder_of_shards(nlp, source, tmp_path):
    output = tmp_path / "test.spacy"
    summary = convert(get_benchmark("nyt"), source, output, split="test", shard_size=5)
    assert [file.name for file in corpus_files(output)] == ["00000.spacy", "00001.spacy", "00002.spacy"]
    assert len(summary["files"]) == 3
    docs = list(read_docs(output, nlp.vocab))
    assert len(docs) == 12 and all(len(doc._.relation_pairs) == 3 for doc in docs)


def test_the_same_source_gives_the_same_corpus(source, tmp_path):
    hashes = [
        convert(get_benchmark("nyt"), source, tmp_path / name, split="test")["files"][0]["sha256"]
        for name in ("a.spacy", "b.spacy")
    ]
    assert hashes[0] == hashes[1]


def test_a_file_in_another_format_is_an_error_and_leaves_no_output(source, tmp_path):
    with pytest.raises(
        CorpusError, match=r"nothing could be converted from the format conll04(?s:.*)test\.json:1: malformed"
    ):
        convert(get_benchmark("conll04"), source, tmp_path / "t.spacy", split="test")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.json"]


def test_a_truncated_source_leaves_only_the_rejects(write, tmp_path):
    source = write("test.json", json.dumps(ROWS)[:-20])
    with pytest.raises(CorpusError, match=r"test\.json:1: incomplete or invalid JSON object"):
        convert(get_benchmark("nyt"), source, tmp_path / "t.spacy", split="test", rejects=tmp_path / "r.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.jsonl", "test.json"]


def test_a_full_disk_keeps_the_old_output(source, tmp_path, monkeypatch):
    output = tmp_path / "t.spacy"
    convert(get_benchmark("nyt"), source, output, split="test")
    before = output.read_bytes()

    def fail(self, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(DocBin, "to_disk", fail)
    with pytest.raises(OSError, match="No space left"):
        convert(get_benchmark("nyt"), source, output, split="test", overwrite=True)
    assert output.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.spacy", "t.summary.json", "test.json"]


def test_pooled_rows_belong_to_their_benchmarks(nlp, write, tmp_path):
    prompt = "Text: Ann lives in Oslo.\nEntity 1: Ann\nEntity 2: Oslo\n"
    rows = [
        {"prompt": prompt, "relation": "place lived", "dataset": "nyt11"},
        {"prompt": prompt, "relation": "Other", "dataset": "semeval2010_task8"},
    ]
    source = write("rows.jsonl", "\n".join(map(json.dumps, rows)))
    summary = convert(get_benchmark("hub_rows"), source, tmp_path / "t.spacy", split="train")
    docs = list(read_docs(tmp_path / "t.spacy", nlp.vocab))
    assert [doc.user_data["slmre.format"] for doc in docs] == ["nyt", "semeval2010_task8"]
    assert [doc._.relation_pairs[0].label for doc in docs] == ["/people/person/place_lived", "Other"]
    assert summary["negatives"] == 1 and docs[1]._.relations == ()


def test_the_same_conversion_is_not_repeated(source, tmp_path):
    output = tmp_path / "t.spacy"
    first = convert(get_benchmark("nyt"), source, output, split="test")
    written = output.stat().st_mtime_ns
    assert convert(get_benchmark("nyt"), source, output, split="test") == first
    assert output.stat().st_mtime_ns == written


def test_another_output_is_only_replaced_with_overwrite(source, write, tmp_path):
    output = tmp_path / "t.spacy"
    convert(get_benchmark("nyt"), source, output, split="test")
    before = output.read_bytes()
    for changes in ({"split": "dev"}, {"split": "test", "lang": "de"}):
        with pytest.raises(OutputError, match="already exists"):
            convert(get_benchmark("nyt"), source, output, **changes)
    write("test.json", json.dumps(ROWS[:3]))
    with pytest.raises(OutputError, match="already exists"):
        convert(get_benchmark("nyt"), source, output, split="test")
    assert output.read_bytes() == before
    assert convert(get_benchmark("nyt"), source, output, split="test", overwrite=True)["documents"] == 3
    output.write_bytes(before)  # no longer what the summary describes
    with pytest.raises(OutputError, match="already exists"):
        convert(get_benchmark("nyt"), source, output, split="test")


def test_the_source_is_not_an_output(write):
    source = write("own.spacy", json.dumps(ROWS))
    with pytest.raises(OutputError, match="would replace the input"):
        convert(get_benchmark("nyt"), source, source, split="test", overwrite=True)


def read_own(source, split, *, exact: bool = True):
    yield from ()


def test_a_setting_can_be_true_or_false():
    own = CorpusFormat(name="own", title="Own", read=read_own)
    assert [own.parse_settings({"exact": text})["exact"] for text in ("true", "false")] == [True, False]
