"""What a network says about a feed: the same as about the same frames in one piece."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from video_files import encode

from nonlocalnet.card import Card, card_of, set_card
from nonlocalnet.datasets import ViewDataset, Views
from nonlocalnet.errors import UserError
from nonlocalnet.feeds import Frame, open_feed
from nonlocalnet.head import head_of
from nonlocalnet.models import create_model
from nonlocalnet.moments import Moment, moments, ready
from nonlocalnet.pace import Pace
from nonlocalnet.scoring import score
from nonlocalnet.streaming import Streaming, is_stream


def made(name: str, card: dict[str, Any] | None = None, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = create_model(name, num_classes=4, **options).eval()
    nn.init.normal_(head_of(model).weight)  # so that answers differ,
    for name, weight in model.named_parameters():
        if "bn" in name and name.endswith("weight"):
            nn.init.uniform_(weight, 0.5, 1.5)  # and every residual branch has its say
    set_card(model, dataclasses.replace(card_of(model), **(card or {})))
    return model


def watched(model: nn.Module, path: Path, **options: Any) -> list[Moment]:
    net = ready(model)
    pace = Pace(card_of(model), is_stream(net))
    with open_feed(str(path)) as feed:
        return list(moments(net, feed.take(pace.step, pace.phase), **options))


def predicted(model: nn.Module, path: Path) -> Tensor:
    """The logits of the one clip that `predict --views 1x1` looks at."""
    views = ViewDataset([str(path)], card_of(model), 1, 1)[0]
    assert isinstance(views, Views)
    return score(model, views.clips)[0]


@pytest.mark.parametrize(
    ("name", "card", "frames"),
    [
        ("i3d_tiny", {"stride": 3}, 22),
        ("i3d_tiny", {"stride": 3, "short_side": 40}, 22),
        ("i3d_tiny", {"stride": 3, "window": "full"}, 24),
        ("i3d_tiny", {"stride": 4, "window": "spread"}, 32),
        ("i3d_tiny", {"stride": 2, "rate": 15.0}, 24),  # 25 a second: every 3.33rd frame
        ("i3d_tiny", {}, 5),  # shorter than a clip: the last frame again
        ("i3d_tiny", {"beyond": "wrap"}, 5),
        ("tsm_tiny", {"gap": 3 / 25}, 24),
        ("tsm_tiny", {"gap": 4 / 25}, 32),
    ],
)
def test_a_clip_of_a_file_is_as_in_predict(
    name: str, card: dict[str, Any], frames: int, tmp_path: Path
) -> None:
    encode(tmp_path / "a.mp4", frames=frames)
    model = made(name, card)
    (moment,) = watched(model, tmp_path / "a.mp4")
    assert torch.equal(moment.logits, predicted(model, tmp_path / "a.mp4"))
    assert moment.fresh
    assert moment.features is None


@pytest.mark.parametrize("options", [{}, {"non_local": ("layer2.0",), "causal": 3}])
def test_frame_by_frame_is_as_in_predict(options: dict[str, Any], tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", frames=22)
    card = {"gap": 3 / 25, "sampling": "dense", "stride": 3}
    model = made("tsm_tiny", card, shift="past", **options)
    found = watched(model, tmp_path / "a.mp4")
    assert [m.seconds for m in found] == pytest.approx([n * 3 / 25 for n in range(8)])
    assert [m.fresh for m in found] == [True] + [False] * 7
    assert {m.start for m in found} == {0.0}
    mean = torch.stack([m.logits for m in found]).mean(0)
    torch.testing.assert_close(mean, predicted(model, tmp_path / "a.mp4"), rtol=1e-5, atol=1e-5)
    assert found[0].logits.std() > 0.01


def frames(count: int, fps: float = 10.0, **changes: dict[int, Any]) -> Iterable[Frame]:
    """Grey pictures, each a little lighter; changes: number -> value of a field."""
    for number in range(count):
        picture = np.full((32, 32, 3), 2 * number, np.uint8)
        frame = Frame(number, number / fps, picture)
        yield dataclasses.replace(
            frame, **{k: v[number] for k, v in changes.items() if number in v}
        )


class Recalls(nn.Module):
    """Logits: the first and the last brightness of the clip, and how many frames differ."""

    def __init__(self, **card: Any) -> None:
        super().__init__()
        options = {"frames": 4, "stride": 1, "short_side": 32, "crop": 32, "test_crop": 32}
        set_card(self, Card(mean=(0,) * 3, std=(1 / 255,) * 3, **(options | card)))

    def forward(self, x: Tensor) -> Tensor:
        grey = x.mean((1, 3, 4)).round()
        return torch.stack([grey[:, 0], grey[:, -1], (grey.diff(dim=1) != 0).sum(1) + 1.0], 1)


def told(model: nn.Module, given: Iterable[Frame], **options: Any) -> list[list[float]]:
    return [m.logits.tolist() for m in moments(model, given, **options)]


def test_clips_overlap_by_half_and_end_with_the_feed() -> None:
    found = list(moments(Recalls(), frames(9)))
    assert [m.logits.tolist() for m in found] == [[0, 6, 4], [4, 10, 4], [8, 14, 4], [10, 16, 4]]
    assert [m.start for m in found] == [0.0, 0.2, 0.4, 0.5]
    assert [m.seconds for m in found] == [0.3, 0.5, 0.7, 0.8]
    assert told(Recalls(), frames(8), hop=1.0) == [[0, 6, 4], [8, 14, 4]]
    assert told(Recalls(), frames(8), hop=0.25)[-1] == [8, 14, 4]
    assert len(told(Recalls(), frames(8), hop=0.01)) == 5
    assert told(Recalls(), frames(2)) == [[0, 2, 2]]
    assert told(Recalls(beyond="wrap"), frames(3)) == [[0, 0, 4]]


def test_nothing_is_seen_across_a_cut() -> None:
    words: list[str] = []
    found = list(moments(Recalls(), frames(9, cut={5: "b.mp4 begins"}), say=words.append))
    assert [m.logits.tolist() for m in found] == [[0, 6, 4], [2, 8, 4], [10, 16, 4]]
    assert [m.fresh for m in found] == [True, False, True]
    assert words == ["at 0.5 s the network begins anew: b.mp4 begins"]
    assert told(Recalls(), frames(9, cut={7: "b.mp4 begins"}))[-1] == [14, 16, 2]


def test_nothing_is_seen_across_a_silence() -> None:
    words: list[str] = []
    late = {n: n / 10 + (3.0 if n >= 5 else 0.0) for n in range(9)}
    found = told(Recalls(), frames(9, seconds=late), say=words.append)
    assert found == [[0, 6, 4], [2, 8, 4], [10, 16, 4]]
    assert words == ["at 3.5 s the network begins anew: 3.1 s without a frame"]
    # where frames are seconds apart anyhow, that is none
    assert len(told(Recalls(), frames(8, fps=0.5), hop=1.0, say=words.append)) == 2
    assert len(words) == 1


def test_an_online_network_forgets_at_a_cut() -> None:
    net = ready(made("tsm_tiny", shift="past"))
    noise = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), np.uint8)
    given = [Frame(n, n / 10, picture) for n, picture in enumerate(noise)]
    cut = [dataclasses.replace(given[0], seconds=0.4, cut="again"), *given[1:]]
    found = list(moments(net, [*given, *given[:1], *cut]))
    logits = [m.logits for m in found]
    assert torch.equal(logits[0], logits[5])
    assert not torch.allclose(logits[0], logits[4], atol=1e-3)  # where nothing is forgotten
    assert [m.fresh for m in found] == [n in (0, 5) for n in range(9)]
    assert found[5].start == 0.4


@pytest.mark.parametrize("options", [{}, {"shift": "past"}])
def test_features_are_what_the_last_layer_sees(options: dict[str, Any]) -> None:
    model = made("tsm_tiny", **options)
    head = head_of(model)
    found = list(moments(ready(model), frames(8), features=True))
    for moment in found:
        assert moment.features is not None
        assert moment.features.shape == (head.in_features,)
        again = head.cpu()(moment.features[None])[0]
        torch.testing.assert_close(again, moment.logits, rtol=1e-4, atol=1e-5)
    assert not head._forward_pre_hooks
    assert next(iter(moments(ready(model), frames(8)))).features is None
    with pytest.raises(UserError, match="does not show"):
        next(iter(moments(Recalls(), frames(8), features=True)))


def test_how_a_network_goes() -> None:
    online, clip = made("tsm_tiny", shift="past"), made("tsm_tiny")
    assert isinstance(ready(online), Streaming)
    assert ready(online, "clip") is online
    assert ready(clip) is clip
    with pytest.raises(UserError, match="cannot run frame by frame"):
        ready(clip, "frame")
    with pytest.raises(UserError, match="not by clips"):
        ready(Streaming(online), "clip")
    # one without memory was trained on the mean of a clip
    still = made("c2d_tiny", stem="image")
    assert ready(still) is still
    assert isinstance(ready(still, "frame"), Streaming)


def test_answers_that_are_no_numbers() -> None:
    model = made("tsm_tiny", shift="past")
    with torch.no_grad():
        head_of(model).weight.fill_(torch.nan)
    with pytest.raises(UserError, match="not numbers"):
        next(iter(moments(ready(model), frames(2))))


def test_a_training_network_is_left_as_it_was() -> None:
    model = made("tsm_tiny").train()
    assert len(told(model, frames(8))) == 1
    assert model.training
