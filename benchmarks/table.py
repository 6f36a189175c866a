"""Write docs/benchmarks.md from the figures in benchmarks/results/.

    python benchmarks/table.py

The page is a function of goals.py and the JSON files, and a test holds it to them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from goals import GOALS, TITLES, Goal

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
Results = dict[str, dict[str, Any]]  # name of the file -> its content

HEAD = """\
# Benchmarks

What the operation and its block reach beside the forms of others. This page is written by
`python benchmarks/table.py` from the JSON files in `benchmarks/results/`. `make bench` measures the
CPU rows anew and writes it; `python benchmarks/gpu.py` measures P12 to P14, which need CUDA, and
`benchmarks/decoding.py`, `preparing.py` and `worker_memory.py` measure the reading of videos. P11
stands in [Export and speed](export.md).

Ours and the other form have the same weights and the same random inputs, and run in turns in one
process. *Measured* is the median of theirs / ours over neighbouring runs, with the least and the
greatest; on a CPU of process time on one thread, batch 1 and float32 unless the row says otherwise.
Peak memory is the growth of a fresh process in one step. The more the better; of growth and errors,
the less. *Error* is that of the same run against float64, |y − y₆₄| / |y₆₄|, of what the block adds
to its input, or of the gradients. The least of a sweep stands with the range of its shapes' medians
and the worst of their errors; the shapes are listed below.

P9 has the peers' packages as they are, and their PSNR below. The other peers' are not used: their
forms are written from their equations in `benchmarks/peers.py`, their orders of work in
`orders.py`, and both say what each stands for. On another machine only the ratios mean anything.
"""


def load() -> Results:
    files = sorted((HERE / "results").glob("*.json"))
    return {path.stem: json.loads(path.read_text("utf-8")) for path in files}


def row_of(goal: Goal, results: Results) -> dict[str, Any] | None:
    row: dict[str, Any] | None = results.get(goal.name, {}).get("rows", {}).get(goal.part)
    return row


def met(goal: Goal, row: dict[str, Any]) -> str:
    """Whether the median reaches the must, and the aim."""
    median = row["measured"]["median"]
    must = row["error_theirs"] if goal.kind == "error" else goal.must
    if must is None:
        return ""
    more = goal.kind == "times"
    reached = [
        limit is not None and (median >= limit if more else median <= limit)
        for limit in (must, goal.aim)
    ]
    return ("yes, the aim too" if reached[1] else "yes") if reached[0] else "no"


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def number(value: float, goal: Goal) -> str:
    if goal.kind == "error":
        return f"{value:.1e}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def limit(value: float | None, goal: Goal) -> str:
    if value is None:
        return ""
    return {"times": f"{value:g}×", "growth": f"≤ {value:g}×", "error": f"{value:.0e}"}[goal.kind]


def goal_line(goal: Goal, row: dict[str, Any] | None) -> str:
    must = "≤ theirs" if goal.kind == "error" else limit(goal.must, goal)
    limits = (must, limit(goal.aim, goal))
    if row is None:
        return line(goal.name, goal.part, *limits, "not measured yet", "", "")
    median, least, most = (number(row["measured"][k], goal) for k in ("median", "min", "max"))
    times = "" if goal.kind == "error" else "×"
    errors = ""
    if row.get("error_ours") is not None:
        errors = f"{row['error_ours']:.1e} / {row['error_theirs']:.1e}"
    measured = f"{median}{times} ({least}–{most})"
    return line(goal.name, goal.part, *limits, measured, met(goal, row), errors)


def goals_table(results: Results) -> list[str]:
    lines = [
        line("goal", "what", "must", "aim", "measured", "met?", "error ours / theirs"),
        line(*["---"] * 7),
    ]
    for name, title in TITLES.items():
        lines.append(line(name, f"**{title}**", *[""] * 5))
        lines += [goal_line(goal, row_of(goal, results)) for goal in GOALS if goal.name == name]
    return lines


def sweep_table(name: str, results: Results) -> list[str]:
    """Every shape of a sweep, forward beside forward + backward."""
    steps: dict[str, dict[str, str]] = {}
    for row in results.get(name, {}).get("sweep", []):
        median, least, most = (f"{row['measured'][k]:.3g}" for k in ("median", "min", "max"))
        steps.setdefault(row["case"], {})[row["step"]] = f"{median}× ({least}–{most})"
    if not steps:
        return []
    heads = list(dict.fromkeys(step for found in steps.values() for step in found))
    return [
        "",
        f"### {name}",
        "",
        line("channels x positions", *heads),
        line(*["---"] * (1 + len(heads))),
        *(line(case, *(found.get(head, "") for head in heads)) for case, found in steps.items()),
    ]


def attention_table(results: Results) -> list[str]:
    """Milliseconds of ours and of torch's attention by width, as gpu.py finds them."""
    rows = results.get("attention", {}).get("widths", [])
    if not rows:
        return []
    forms = list(rows[0]["ms"])
    return [
        "",
        "## Forms of the softmax on CUDA",
        "",
        "Milliseconds of the operation, bf16, batch 8; empty where a kernel refuses the shape.",
        "",
        line("function", "N", "width", "step", *forms, "best"),
        line(*["---"] * (5 + len(forms))),
        *(
            line(
                row["pairwise"],
                str(row["n"]),
                str(row["width"]),
                row["step"],
                *("" if row["ms"][form] is None else f"{row['ms'][form]:.3g}" for form in forms),
                row["best"],
            )
            for row in rows
        ),
    ]


def denoise_table(results: Results) -> list[str]:
    """PSNR of ours and of the others, on the images whose times are above."""
    rows = results.get("P9", {}).get("rows", {})
    if not rows:
        return []
    heads = ("against", "seconds, ours / theirs", "PSNR, ours / theirs, dB")
    return [
        "",
        "## NL-means: seconds and PSNR",
        "",
        f"Load of the machine at the end: {results['P9']['load'][0]:.1f}.",
        "",
        line(*heads),
        line(*["---"] * len(heads)),
        *(
            line(
                part,
                f"{row['ours_s']:.3g} / {row['theirs_s']:.3g}",
                f"{row['psnr_ours']:.2f} / {row['psnr_theirs']:.2f}",
            )
            for part, row in rows.items()
        ),
    ]


def reading_tables(results: Results) -> list[str]:
    """Where the time of a clip goes, what `prepare` gains, and the memory of a reading process."""
    lines: list[str] = []
    if steps := results.get("P15", {}).get("breakdown"):
        heads = list(next(iter(steps.values())))
        lines += [
            "",
            "## Where the time of a training clip goes",
            "",
            "CPU milliseconds per clip of each step of ours, measured one by one; the files are"
            f" {results['P15']['files']}.",
            "",
            line("clip", *heads),
            line(*["---"] * (1 + len(heads))),
            *(
                line(name, *(f"{found[head]:.2f}" for head in heads))
                for name, found in steps.items()
            ),
        ]
    if rows := results.get("preparing", {}).get("rows"):
        lines += [
            "",
            "## What `nonlocalnet prepare` gains",
            "",
            "CPU time of a training clip from the file as it was (key frame every 250) over that"
            " from the prepared file, and its bytes over theirs.",
            "",
            line("file", "key frame every", "crf", "32x2", "8x8", "bytes"),
            line(*["---"] * 6),
            *(
                line(
                    row["size"],
                    str(row["gop"]),
                    str(row["crf"]),
                    *(f"{row[clip]['measured']['median']:.2f}×" for clip in ("32x2", "8x8")),
                    f"{row['bytes']:.2f}×",
                )
                for row in rows
            ),
        ]
    if curve := dict(results.get("worker_memory", {}).get("curve", [])):
        clips = [count for count in curve if count in (250, 1000, 2500, 5000, 7500, 10_000)]
        lines += [
            "",
            "## Memory of a reading process",
            "",
            line("clips read", *(f"{count:,}" for count in clips)),
            line(*["---"] * (1 + len(clips))),
            line("resident, MB", *(f"{curve[count] / 1e6:.1f}" for count in clips)),
        ]
    return lines


def machines(results: Results) -> list[str]:
    """Which goals were measured where and when."""
    found: dict[str, list[str]] = {}
    for name in (*TITLES, "attention", "preparing", "worker_memory"):
        if name in results:
            m = results[name]["machine"]
            on = f"{m['gpu']}, " if "gpu" in m else ""
            threads = f"{m['threads']} thread{'s' if m['threads'] > 1 else ''}"
            kernels = "".join(f", {p} {m[p]}" for p in ("numba", "triton") if m.get(p))
            what = (
                f"{on}{m['cpu']}, {m['cores']} cores, {threads}, Python {m['python']},"
                f" torch {m['torch']}{kernels}, {m['date']}"
            )
            found.setdefault(what, []).append(name)
    return [f"- {', '.join(names)}: {what}" for what, names in found.items()]


def page(results: Results) -> str:
    lines = [HEAD, *goals_table(results)]
    sweeps = [*sweep_table("P4", results), *sweep_table("P6", results)]
    if sweeps:
        lines += ["", "## The sweeps, shape by shape", *sweeps]
    lines += attention_table(results)
    lines += denoise_table(results)
    lines += reading_tables(results)
    lines += ["", "## Where it was measured", ""]
    lines += machines(results) or ["Nothing has been measured yet."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(load()), "utf-8")
    print(f"{PAGE.relative_to(HERE.parent)} is written")
