"""What a recipe promises: the score, whose it is, and what the training costs."""

from __future__ import annotations

from dataclasses import dataclass

from ..recipes import Recipe

# Training videos. Kinetics loses videos every year: figures are of the copy that is named.
VIDEOS: dict[str, int] = {
    "Kinetics-400": 234_643,  # video-nonlocal-net's copy, of 246,534 in the list
    "Something-Something v1": 86_017,
    "Something-Something v2": 168_913,
    "Charades": 7_811,  # those that video-long-term-feature-banks trains on
    "UCF101": 9_537,  # split 1
    "HMDB51": 3_570,  # split 1
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
        run = f"torchrun --nproc-per-node 8 -m nonlocalnet train TRAIN --val VAL --recipe {name}"
        test = f"nonlocalnet test runs/{name} VAL --views {self.views}"
        return f"{run}{start} -o runs/{name}", test

    def operations(self, multiply_adds: int) -> float:
        """Floating-point operations of the training: 2 a multiply-add, thrice the forward pass."""
        return 6.0 * multiply_adds * VIDEOS.get(self.data, 0) * (self.recipe.epochs or 0)
