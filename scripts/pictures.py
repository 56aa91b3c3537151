"""Take the pictures in docs/images with headless Chromium.

Usage: python scripts/pictures.py [REPORT.html]

The pictures show gold relations of the demo corpus and, if given, a report by `slmre report`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import spacy

from spacy_slmre import render
from spacy_slmre.corpus.gold_docs import make_doc
from spacy_slmre.corpus.records import Record
from spacy_slmre.documents import ID
from spacy_slmre.relations import install_extensions, join_docs
from spacy_slmre.study.benchmarks.card import get_benchmark

ROOT = Path(__file__).parent.parent
SENTENCES = ("train-21", "train-44", "train-186", "train-108")
# Graphs open at a readable size.
SHOW_ALL = "<script>document.querySelector('[data-zoom=all]').click()</script>"


def main() -> None:
    """Write docs/images/arcs.png, arcs_dark.png, graph.png and, if a report is given, report.png."""
    browser = shutil.which("chromium")
    if browser is None:
        sys.exit("This script needs chromium. Install it with: apt-get install chromium")
    install_extensions()
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    card = get_benchmark("demo")
    docs = []
    for split in ("train", "dev", "test"):
        for record in card.read(ROOT / "assets" / "demo_corpus" / f"{split}.txt", split):
            if isinstance(record, Record):
                doc, _ = make_doc(nlp, record, card, split)
                docs.append(nlp.get_pipe("sentencizer")(doc))
    chosen = {doc.user_data[ID]: doc for doc in docs}
    with warnings.catch_warnings():
        # Joining documents drops their ids, which are not needed here.
        warnings.filterwarnings("ignore", message=r"\[W102\]")
        text = join_docs([chosen[name] for name in SENTENCES])
    related = sorted(docs, key=lambda doc: -len(doc._.relations))[:5]
    pages = {
        "arcs": (render(text, page=True, options={"title": "Relations", "width": 760, "theme": "light"}), "800,600"),
        "arcs_dark": (
            render(text, page=True, options={"title": "Relations", "width": 760, "theme": "dark"}),
            "800,600",
        ),
        "graph": (render(related, "graph", True, options={"title": "Relations", "theme": "light"}), "1100,640"),
    }
    for report in sys.argv[1:2]:
        pages["report"] = (Path(report).read_text(encoding="utf-8"), "1100,1000")
    with tempfile.TemporaryDirectory() as folder:
        for name, (html, size) in pages.items():
            page = Path(folder) / f"{name}.html"
            page.write_text((html or "") + SHOW_ALL * (name == "graph"), encoding="utf-8")
            image = ROOT / "docs" / "images" / f"{name}.png"
            command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            command += [f"--window-size={size}", f"--screenshot={image}", page.as_uri()]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            print(f"{image.relative_to(ROOT)}: {image.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
