"""Samples and splits: what is written is what is read, wherever the folder has gone."""

from __future__ import annotations

import math

import pytest
import torch

from nonlocalnet.errors import UserError
from nonlocalnet.samples import Action, Sample, Split, inside, join, multi_hot, present

SAMPLES = (
    Sample("/data/a/1.mp4", 0, "1"),
    Sample("/data/b/2.mp4", 1, "2", start=1.5, end=4.0),
    Sample("/data/b/3.mp4", 1, "3", start=2.0),
    Sample("/data/c/img_{:05d}.jpg", 1, "c", pictures=40, rate=12.0),
    Sample("s3://bucket/d.mp4", -1, "d", actions=(Action(1, 0.5, 2.0), Action(0))),
    Sample("/elsewhere/e.mp4", -1, "e"),
)


def test_a_split_survives_json() -> None:
    split = Split(("a", "b"), SAMPLES[:3], SAMPLES[3:], ("a note",), "/data")
    assert Split.from_json(split.to_json()) == split
    assert "Infinity" not in split.to_json()
    assert split.several
    assert not Split(("a", "b"), SAMPLES[:3], SAMPLES[3:4]).several


def test_a_folder_that_moved() -> None:
    text = Split(("a", "b"), SAMPLES, (), (), "/data").to_json()
    moved = Split.from_json(text, "/new").train
    assert [sample.path for sample in moved] == [
        "/new/a/1.mp4",
        "/new/b/2.mp4",
        "/new/b/3.mp4",
        "/new/c/img_{:05d}.jpg",
        "s3://bucket/d.mp4",
        "/elsewhere/e.mp4",
    ]


def test_what_earlier_versions_wrote_is_read() -> None:
    text = '{"root": "/d", "classes": ["x"], "notes": [], "train": [["x/1", 0, "1"]], "val": []}'
    assert Split.from_json(text).train == (Sample("/d/x/1", 0, "1"),)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"root": "", "train": [[1]], "val": []}'])
def test_no_split(text: str) -> None:
    with pytest.raises(UserError, match="no split"):
        Split.from_json(text)


@pytest.mark.parametrize(
    ("root", "path", "whole"),
    [
        ("/d", "a/1.mp4", "/d/a/1.mp4"),
        ("/d/", "a/1.mp4", "/d/a/1.mp4"),
        ("s3://b/videos/", "a/1.mp4", "s3://b/videos/a/1.mp4"),
        ("http://h/v", "1.mp4", "http://h/v/1.mp4"),
    ],
)
def test_join_and_inside(root: str, path: str, whole: str) -> None:
    assert join(root, path) == whole
    assert inside(whole, root) == path
    assert inside("/dx/1.mp4", "/d") == "/dx/1.mp4"
    assert join("/d", "/abs/1.mp4") == "/abs/1.mp4"
    assert join("", "a.mp4") == inside("a.mp4", "") == "a.mp4"


def test_present() -> None:
    actions = (Action(0, 1.0, 2.0), Action(2, 4.0, 9.0), Action(2, 0.0, 0.1), Action(3))
    assert present(actions, 5, 2.0, 3.0).tolist() == [1, 0, 0, 1, 0]
    assert present(actions, 5, 2.1, 3.9).tolist() == [0, 0, 0, 1, 0]
    assert present(actions, 5).tolist() == [1, 0, 1, 1, 0]
    assert torch.equal(present((), 2, 0.0, math.inf), torch.zeros(2))


def test_multi_hot() -> None:
    part = Sample("a", -1, "a", 2.5, 3.0, (Action(0, 1.0, 2.0), Action(2, 2.0, 9.0)))
    assert multi_hot(part, 4).tolist() == [0, 0, 1, 0]
    assert multi_hot(Sample("a", 3, "a", start=1.0), 4).tolist() == [0, 0, 0, 1]
    assert multi_hot(Sample("a", -1, "a"), 2).tolist() == [0, 0]


def test_labels() -> None:
    assert Sample("a", 3, "a").labels == (3,)
    assert Sample("a", -1, "a", actions=(Action(5), Action(2), Action(5))).labels == (2, 5)
