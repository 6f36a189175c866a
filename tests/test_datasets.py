"""Training clips and test views from real files whose frames carry their number as brightness."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nonlocalnet import datasets
from nonlocalnet.card import Card
from nonlocalnet.datasets import Broken, VideoDataset, ViewDataset, Views
from nonlocalnet.samples import Sample
from nonlocalnet.video import write_video

FPS = 10
CARD = Card(
    frames=4, stride=2, short_side=32, crop=24, test_crop=32, jitter=(32, 40), clips=3, crops=3
)


def numbered(path: Path, frames: int, width: int = 48) -> str:
    """Frame i is grey of brightness 8 i + 20, with a bright left and a dark right edge."""
    pixels = (8 * torch.arange(frames) + 20).clamp(max=230)[:, None, None, None]
    pixels = pixels.expand(frames, 32, width, 3).clone().to(torch.uint8)
    pixels[:, :, :8], pixels[:, :, -8:] = 250, 5
    write_video(path, pixels, fps=FPS, crf=1)
    return str(path)


def numbers(clip: Tensor) -> list[int]:
    """Frame numbers of (3, T, S, S), read from the middle of each frame."""
    middle = clip[:, :, 10:-10, 10:-10].float().mean((0, 2, 3))
    return ((middle - 20) / 8).round().int().tolist()


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    sizes = {"long": (20, 48), "tall": (16, 32), "short": (3, 40)}
    return [
        Sample(numbered(tmp_path / f"{name}.mp4", *size), label, name)
        for label, (name, size) in enumerate(sizes.items())
    ]


@pytest.fixture
def broken(tmp_path: Path) -> list[Sample]:
    (tmp_path / "page.mp4").write_text("<html>" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder.mp4").mkdir()
    names = ("page", "empty", "folder", "missing")
    return [Sample(str(tmp_path / f"{name}.mp4"), 0, name) for name in names]


def clip_of(item: tuple[Tensor, int] | Broken) -> Tensor:
    assert not isinstance(item, Broken), item
    return item[0]


def test_a_training_clip_is_a_stretch_of_the_video(samples: list[Sample]) -> None:
    videos = VideoDataset(samples, CARD, seed=0)
    assert len(videos) == 3
    starts = set()
    for epoch in range(12):
        item = videos[epoch, 0]
        assert not isinstance(item, Broken)
        clip, label = item
        assert (clip.shape, clip.dtype, label) == ((3, 4, 24, 24), torch.uint8, 0)
        found = numbers(clip)
        assert found == [found[0] + 2 * i for i in range(4)]
        starts.add(found[0])
    assert len(starts) > 4
    assert 0 <= min(starts) <= max(starts) <= 20 - 7
    # shorter than the window: the last frame is repeated
    assert numbers(clip_of(videos[0, 2])) in ([0, 2, 2, 2], [1, 2, 2, 2], [2, 2, 2, 2])


def test_a_training_clip_depends_on_seed_epoch_and_index_only(samples: list[Sample]) -> None:
    twice = [samples[0], samples[0]]
    videos = VideoDataset(twice, CARD, seed=0)
    keys = [(epoch, index) for epoch in range(4) for index in range(2)]
    clips = [clip_of(videos[key]) for key in keys]
    state = torch.random.get_rng_state()
    again = [clip_of(VideoDataset(twice, CARD, seed=0)[key]) for key in reversed(keys)][::-1]
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(clips, again, strict=True))
    assert len({clip.numpy().tobytes() for clip in clips}) == len(clips)
    assert not torch.equal(clips[0], clip_of(VideoDataset(twice, CARD, seed=1)[0, 0]))


def test_worker_processes_give_the_same_clips(samples: list[Sample], broken: list[Sample]) -> None:
    videos = VideoDataset([*samples, *broken], CARD, seed=0)
    keys = [(epoch, index) for epoch in range(2) for index in range(7)]
    loader = DataLoader(
        videos, batch_sampler=[[key] for key in keys], num_workers=2, collate_fn=only,
        generator=torch.Generator(), multiprocessing_context="fork",
    )  # fmt: skip
    for key, item in zip(keys, loader, strict=True):
        here = videos[key]
        if isinstance(here, Broken):
            assert item == here
        else:
            assert torch.equal(item[0], here[0])
            assert item[1] == here[1]


def only(items: list[object]) -> object:
    return items[0]


def test_views_are_clip_after_clip_and_within_it_crop_after_crop(samples: list[Sample]) -> None:
    views = ViewDataset(samples, CARD, clips=3, crops=3)[0]
    assert isinstance(views, Views)
    assert views.sample == samples[0]
    assert (views.clips.shape, views.clips.dtype) == ((9, 3, 4, 32, 32), torch.uint8)
    assert (views.timestamps.shape, views.timestamps.dtype) == ((9, 4), torch.float64)
    for view, seconds in zip(views.clips, views.timestamps, strict=True):
        assert [n / FPS for n in numbers(view)] == pytest.approx(seconds.tolist())
    starts = [numbers(view)[0] for view in views.clips]
    assert starts == sorted(starts)
    assert [starts[0], starts[3], starts[6]] == sorted(set(starts))
    edges = [(bool(v[0, 0, 16, 2] > 200), bool(v[0, 0, 16, -3] < 13)) for v in views.clips]
    assert edges == [(True, False), (False, False), (False, True)] * 3


def test_one_view_is_the_middle_and_paths_have_no_label(samples: list[Sample]) -> None:
    views = ViewDataset([sample.path for sample in samples], CARD, clips=1, crops=1)
    assert len(views) == 3
    first = views[0]
    assert isinstance(first, Views)
    assert first.sample.label == -1
    assert first.clips.shape == (1, 3, 4, 32, 32)
    assert abs(sum(numbers(first.clips[0])) / 4 - 9.5) <= 0.5


def test_large_pictures_are_decoded_clip_by_clip_to_the_same_views(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = [ViewDataset(samples, CARD, 5, 3)[index] for index in range(3)]
    monkeypatch.setattr(datasets, "DECODED_BYTES", 0)
    alone = [ViewDataset(samples, CARD, 5, 3)[index] for index in range(3)]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Views)
        assert isinstance(other, Views)
        assert torch.equal(one.clips, other.clips)
        assert torch.equal(one.timestamps, other.timestamps)


def test_broken_files_are_values_with_a_reason(broken: list[Sample]) -> None:
    videos, views = VideoDataset(broken, CARD), ViewDataset(broken, CARD, 2, 1)
    for index, sample in enumerate(broken):
        for item in (videos[0, index], views[index]):
            assert isinstance(item, Broken)
            assert item.path == sample.path
            assert item.reason
            assert sample.path not in item.reason


def test_data_sets_travel_to_processes(samples: list[Sample]) -> None:
    for videos in (VideoDataset(samples, CARD, 3), ViewDataset(samples, CARD, 1, 1)):
        copy = pickle.loads(pickle.dumps(videos))
        assert vars(copy) == vars(videos)


def test_a_wrong_index_is_a_mistake_of_the_program(samples: list[Sample]) -> None:
    with pytest.raises(IndexError):
        VideoDataset(samples, CARD)[0, 3]
    with pytest.raises(IndexError):
        ViewDataset(samples, CARD, 1, 1)[3]
