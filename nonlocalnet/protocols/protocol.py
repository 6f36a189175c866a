"""What a recipe promises: the score, whose it is, and what the training costs."""

from __future__ import annotations

from dataclasses import dataclass

from ..listings.counts import COPIES
from ..recipes import Recipe

# name: the copy that figures are of, a key of COPIES and whose; Kinetics loses videos every year
_COPIES = {
    "Kinetics-400": ("kinetics400", "video-nonlocal-net"),
    "Something-Something v1": ("something-v1", "release"),
    "Something-Something v2": ("something-v2", "release"),
    "Charades": ("charades", "video-long-term-feature-banks"),
    "UCF101": ("ucf101-1", "release"),
    "HMDB51": ("hmdb51-1", "release"),
}
# training videos
VIDEOS: dict[str, int] = {
    name: next(copy.train for copy in COPIES[key] if copy.whose == whose)
    for name, (key, whose) in _COPIES.items()
}
# what stands for the data on a command line, to train and to test; others have two lists
LISTS = {
    "UCF101": ("ucfTrainTestlist --root UCF-101", "ucfTrainTestlist --root UCF-101"),
    "HMDB51": ("testTrainMulti_7030_splits --root hmdb51",) * 2,
}
SUSTAINED = 40e12  # floating-point operations per second that a training GPU is taken to sustain


@dataclass(frozen=True)
class Protocol:
    """A recipe and its promise.

    about: what it is. recipe: what `train` is told. data: a key of VIDEOS, or in words. expect: the
    score and whose it is. views: of the test that gives that score. first: the protocol whose run
    it starts from. differs: from its source, as far as known. measured: where it was, here.
    """

    about: str
    recipe: Recipe
    data: str
    expect: str = ""
    views: str = ""
    first: str = ""
    differs: str = ""
    measured: str = "not measured here"

    def commands(self, name: str) -> tuple[str, ...]:
        """What to type for training on eight GPUs and for the test."""
        if self.data not in VIDEOS:
            return (f"nonlocalnet train DATA --recipe {name} -o runs/{name}",)
        start = f" --pretrained runs/{self.first}" if self.first else ""
        train, held = LISTS.get(self.data, ("TRAIN --val VAL", "VAL"))
        run = f"torchrun --nproc-per-node 8 -m nonlocalnet train {train} --recipe {name}{start}"
        return f"{run} -o runs/{name}", f"nonlocalnet test runs/{name} {held} --views {self.views}"

    def operations(self, multiply_adds: int) -> float:
        """Floating-point operations of the training: 2 a multiply-add, thrice the forward pass."""
        return 6.0 * multiply_adds * VIDEOS.get(self.data, 0) * (self.recipe.epochs or 0)
