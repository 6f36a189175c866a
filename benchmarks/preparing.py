"""What `nonlocalnet prepare` gains: CPU time of a training clip and bytes, before and after.

    python benchmarks/preparing.py --videos FOLDER [--seconds 4]

The films of decoding.py with a key frame every 250 frames, and the same pictures enlarged to
1280 x 720; each prepared with several distances of key frames and qualities. One turn is every
file four times; a ratio is that of the file as it was to the prepared one.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from films import RATE, SECONDS, ours, sources, write
from goals import CLIPS
from measure import keep, paired

from nonlocalnet.card import Card
from nonlocalnet.reencoding import Form, reencode
from nonlocalnet.samples import Sample

SIZES = {"340x256": (340, 256), "1280x720": (1280, 720)}
FORMS = tuple(Form(256, gop, crf) for crf in (18, 23) for gop in (4, 12, 30, 250))


def clips(paths: list[Path], card: Card) -> None:
    for seed, path in enumerate(paths * 4):
        ours(str(path), card, seed)


def measured(old: list[Path], folder: Path, form: Form, seconds: float) -> dict[str, Any]:
    new = []
    for path in old:
        new.append(folder / f"{path.stem}_{form.gop}_{form.crf}.mp4")
        reencode(Sample(str(path), 0, ""), new[-1], form)
    size = [sum(path.stat().st_size for path in paths) for paths in (old, new)]
    row: dict[str, Any] = {"gop": form.gop, "crf": form.crf, "bytes": size[1] / size[0]}
    for clip in CLIPS:
        card = Card(frames=int(clip.split("x")[0]), stride=int(clip.split("x")[1]))
        row[clip] = paired(partial(clips, new, card), partial(clips, old, card), seconds, least=3)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", required=True)
    parser.add_argument("--seconds", type=float, default=4.0)
    told = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for text, size in SIZES.items():
            old = []
            for number, source in enumerate(sources(told.videos)):
                old.append(folder / f"{number}_{text}.mp4")
                write(old[-1], source(size), 250, RATE * SECONDS)
            for form in FORMS:
                rows.append({"size": text, **measured(old, folder, form, told.seconds)})
                row = rows[-1]
                figures = [f"{clip} {row[clip]['measured']['median']:.2f}x" for clip in CLIPS]
                print(
                    text,
                    f"gop {form.gop:3} crf {form.crf}",
                    *figures,
                    f"bytes {row['bytes']:.2f}x",
                    flush=True,
                )
    keep("preparing", {"rows": rows})


if __name__ == "__main__":
    main()
