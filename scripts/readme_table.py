"""Put the table of evaluation runs into README, between its marks.

Usage: python scripts/readme_table.py RUNS… [--readme README.md]

RUNS are folders of `python -m spacy slmre evaluate`. What stands between `<!-- results:begin -->` and
`<!-- results:end -->` is replaced.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from spacy_slmre.evaluation.report import results_markdown
from spacy_slmre.files import write_aside

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def main() -> None:
    """Replace the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    args = parser.parse_args()
    try:
        text = args.readme.read_text(encoding="utf-8")
        if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
            raise ValueError(f"{args.readme} must have {BEGIN} once, and {END} once after it.")
        table = results_markdown(args.runs)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    between = re.compile(f"(?<={re.escape(BEGIN)}).*?(?={re.escape(END)})", re.DOTALL)
    write_aside(args.readme, between.sub(lambda _: f"\n{table}\n", text))


if __name__ == "__main__":
    main()
