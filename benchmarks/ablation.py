"""The paper's Tables 2a to 2d in miniature: the small ablation with three seeds.

    python benchmarks/ablation.py [folder]

`nonlocalnet ablate --seeds 3`, whose report is kept in results/; its tables go into
docs/reunion.md. What is finished in the folder is not done again.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from measure import HERE, RESULTS, keep

from nonlocalnet.ablation import run

PAGE = HERE.parent / "docs" / "reunion.md"
BEGIN, END = "<!-- ablation: begin -->\n", "<!-- ablation: end -->\n"


def tables(found: dict[str, Any]) -> str:
    """The tables as Markdown: mean ± deviation of each question, cost, the paper's figure."""
    text = []
    for table in found["tables"]:
        text.append(f"{table['title']} ({table['paper']})\n")
        text.append("| network | same colour? | direction? | multiply-adds | Kinetics, paper |")
        text.append("|---|---|---|---|---|")
        for row in table["rows"]:
            same, way = (figure(row["accuracy"][q]) for q in ("same colour?", "direction?"))
            cost = f"{row['multiply_adds'] / 1e6:.1f} M"
            paper = row["kinetics_top1_of_the_paper"]
            text.append(f"| {row['name']} | {same} | {way} | {cost} | {paper or '–'} |")
        text.append("")
    return "\n".join(text)


def figure(rate: dict[str, Any]) -> str:
    return f"{rate['mean']:.3f} ± {rate['deviation']:.3f}"


def with_tables(page: str, found: dict[str, Any]) -> str:
    """The page with its tables replaced."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n" + tables(found) + END + rest.partition(END)[2]


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    html = run(where, seeds=3).html
    found = json.loads(html.with_suffix(".json").read_text("utf-8"))
    keep("ablation", found)
    shutil.copyfile(html, RESULTS / "ablation.html")
    PAGE.write_text(with_tables(PAGE.read_text("utf-8"), found), "utf-8")
