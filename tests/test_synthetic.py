"""reunion: what it promises about its clips, measured on the pixels rather than on their making."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalnet.errors import UserError
from nonlocalnet.synthetic import (
    CLASSES,
    LEVELS,
    PALETTE,
    Clip,
    Reunion,
    _draw,
    clip_path,
    draw_clip,
    render_reunion,
    write_clip,
)
from nonlocalnet.video import Video

EASY = Reunion()


def draw_many(count: int, split: str = "train", level: Reunion = EASY) -> list[Clip]:
    return [draw_clip(level, 0, split, index) for index in range(count)]


def discs(frames: Tensor) -> list[tuple[int, float, float, float, int]]:
    """(frame, x, y, width, colour) wherever a frame has coloured pixels, from pixels alone."""
    found = []
    for t, frame in enumerate(frames.float() / 255):
        colourful = frame.amax(-1) - frame.amin(-1) > 0.35  # (H, W)
        if colourful.sum() < 5:
            continue
        y, x = torch.nonzero(colourful).float().unbind(1)
        mean = frame[colourful].mean(0)
        nearest = (torch.tensor(PALETTE) - mean).norm(dim=1).argmin()
        width = float(max(x.max() - x.min(), y.max() - y.min())) + 1
        found.append((t, float(x.mean()), float(y.mean()), width, int(nearest)))
    return found


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": 33}, "size 33 must be even"),
        ({"size": 8}, "at least 16"),
        ({"gap": 1}, "gap 1 must be at least 2"),
        ({"gap": 3}, "frames - gap must be even"),
        ({"gap": 6}, "leave a disc 1 frames"),
        ({"gap": 10}, "leave a disc 0 frames"),
        ({"colours": 1}, "colours 1 must lie in 2..8"),
        ({"colours": 9}, "colours 9"),
        ({"distractors": -1}, "distractors -1"),
        ({"noise": 0.5}, "noise 0.5"),
        ({"speed": 0.0}, "speed 0.0"),
        ({"speed": 10.0}, "lower speed or frames, or raise size"),
        ({"frames": 32}, "lower speed or frames, or raise size"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(fields: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Reunion(**fields)  # type: ignore[arg-type]


def test_the_label_can_be_read_from_the_pixels() -> None:
    for clip in draw_many(96):
        found = discs(clip.frames)
        assert [t for t, *_ in found] == [0, 1, 2, 5, 6, 7]
        first, second = found[:3], found[3:]
        for disc in (first, second):
            assert len({colour for *_, colour in disc}) == 1
            # one disc in the frame: what is coloured fits into one
            assert all(6 <= width <= 2 * EASY.radius[1] + 2 for _, _, _, width, _ in disc)
        right = [disc[2][1] > disc[0][1] + 3 for disc in (first, second)]
        left = [disc[2][1] < disc[0][1] - 3 for disc in (first, second)]
        assert all(right) or all(left)
        same = first[0][4] == second[0][4]
        assert (
            CLASSES[clip.label]
            == f"{'same' if same else 'different'}_{'right' if right[0] else 'left'}"
        )
        assert abs(first[0][2] - second[0][2]) > 2 * EASY.radius[1]  # one above the other


@pytest.mark.parametrize("name", LEVELS)
def test_every_level_keeps_the_discs_apart_in_time_and_inside_the_frame(name: str) -> None:
    level = LEVELS[name]
    for index in range(8):
        clip = draw_clip(level, 0, "train", index)
        assert clip.frames.shape == (level.frames, level.size, level.size, 3)
        seen = ~clip.centres[..., 0].isnan()  # (2, T)
        assert not (seen[0] & seen[1]).any()
        between = seen[1].nonzero().min() - seen[0].nonzero().max()
        assert int(between) == level.gap + 1 >= 3  # so a window of 3 frames has one of them
        centres = clip.centres[seen]
        assert bool((centres > level.radius[1]).all())
        assert bool((centres < level.size - 1 - level.radius[1]).all())


@pytest.mark.parametrize("name", LEVELS)
def test_the_told_centres_and_colours_are_those_of_the_pixels(name: str) -> None:
    level = dataclasses.replace(LEVELS[name], distractors=0)
    for index in range(8):
        clip = draw_clip(level, 1, "val", index)
        for t, x, y, _, colour in discs(clip.frames):
            disc = int(not clip.centres[1, t].isnan().any())
            told = clip.centres[disc, t]
            assert math.dist((x, y), told.tolist()) < 0.6
            assert colour == clip.colours[disc]


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("same", [0, 1])
def test_left_is_right_in_reverse_to_the_last_bit(name: str, same: int) -> None:
    for turn in range(5):
        left, right = (
            _draw(LEVELS[name], 2 * same + way, turn, torch.Generator().manual_seed(turn))
            for way in (0, 1)
        )
        assert CLASSES[left.label].endswith("left")
        assert torch.equal(left.frames, right.frames.flip(0))
        assert not torch.equal(left.frames, right.frames)
        assert left.colours == right.colours[::-1]


def test_the_file_is_as_blind_to_the_direction_of_time_as_the_pixels(tmp_path: Path) -> None:
    for index in range(4):
        frames = draw_clip(EASY, 0, "train", index).frames
        write_clip(tmp_path / "forward.mp4", frames)
        write_clip(tmp_path / "back.mp4", frames.flip(0))
        forward, back = (read(tmp_path / name) for name in ("forward.mp4", "back.mp4"))
        assert torch.equal(forward, back.flip(0))
        assert (forward.float() - frames.float()).abs().mean() < 5  # colour is stored at half size


def read(path: Path) -> Tensor:
    with Video(path) as video:
        return video.frames(range(len(video)))


def test_colours_are_balanced_within_every_class_exactly() -> None:
    clips = draw_many(4 * 12 * 5)  # 12 ordered pairs of 4 colours
    for label in range(4):
        pairs = [clip.colours for clip in clips if clip.label == label]
        assert len(pairs) == 60
        for disc in (0, 1):
            counts = torch.bincount(torch.tensor([pair[disc] for pair in pairs]), minlength=4)
            assert counts.tolist() == [15] * 4
        assert all((a == b) == (label >= 2) for a, b in pairs)


def test_places_are_distributed_alike_in_all_classes() -> None:
    clips = draw_many(2000)
    found = torch.stack(
        [clip.centres[~clip.centres[..., 0].isnan()] for clip in clips]
    )  # (n, 6, 2)
    labels = torch.tensor([clip.label for clip in clips])
    high = (found[..., 1] < 16).float()
    # a clip's six places hang together: its mean counts as one draw
    for value in (found[..., 0], found[..., 0] ** 2, found[..., 1], high):
        means = value.mean(1)
        for label in range(4):
            mine = means[labels == label]
            error = float(means.std()) * math.sqrt(1 / len(mine) + 1 / len(means))
            assert abs(float(mine.mean() - means.mean())) <= 4 * error + 1e-6
    first_high = high[:, 0]
    for label in range(4):
        assert abs(float(first_high[labels == label].mean()) - 0.5) < 4 * 0.5 / math.sqrt(500)


def test_brightness_noise_and_size_vary_but_mildly() -> None:
    clips = torch.stack([clip.frames for clip in draw_many(32)]).float() / 255
    empty = clips[:, 3]
    assert 0.2 < float(empty.mean()) < 0.4
    assert float(empty.mean((1, 2, 3)).std()) > 0.03
    flicker = (clips[:, 3] - clips[:, 4]).abs()
    assert float(flicker.mean()) > 0.01
    assert float(flicker.max()) <= 2 * EASY.noise + 2 / 255


def test_a_clip_depends_on_its_key_only() -> None:
    before = torch.random.get_rng_state()
    one = draw_clip(EASY, 3, "train", 7)
    assert torch.equal(one.frames, draw_clip(EASY, 3, "train", 7).frames)
    for other in (draw_clip(EASY, 4, "train", 7), draw_clip(EASY, 3, "val", 7)):
        assert not torch.equal(one.frames, other.frames)
        assert one.label == other.label
    assert torch.equal(before, torch.random.get_rng_state())


# What can a sum over frames tell?


class SumOverFrames(nn.Module):
    """logits = sum_t f(frame_t), f a perceptron on the frame at a quarter of its size."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Linear(3 * 64, 64), nn.ReLU(), nn.Linear(64, outputs))

    def forward(self, x: Tensor) -> Tensor:
        small = F.avg_pool2d(x.flatten(0, 1), 4)  # (N T, 3, 8, 8)
        out: Tensor = self.f(small.flatten(1)).unflatten(0, x.shape[:2]).mean(1)
        return out


def as_input(clips: list[Clip]) -> Tensor:
    frames = torch.stack([clip.frames for clip in clips])
    return frames.permute(0, 1, 4, 2, 3).float() / 127.5 - 0.7  # (N, T, 3, H, W)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    train, val = draw_many(1600), draw_many(800, "val")
    labels = [torch.tensor([clip.label for clip in side]) for side in (train, val)]
    return as_input(train), labels[0], as_input(val), labels[1]


def held_out_loss(
    model: nn.Module, x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor, epochs: int = 12
) -> tuple[float, float]:
    """(lowest mean cross-entropy on held-out clips over all epochs, its standard error)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    shuffle, best = torch.Generator().manual_seed(0), (math.inf, 0.0)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=shuffle).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            losses = F.cross_entropy(model(x_val), y_val, reduction="none")
        error = float(losses.std()) / math.sqrt(len(losses))
        best = min(best, (float(losses.mean()), error))
    return best


def probe(outputs: int) -> SumOverFrames:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SumOverFrames(outputs)


@pytest.mark.parametrize(
    ("question", "answers"),
    [("same", 2), ("direction", 2), ("class", 4)],
)
def test_a_sum_over_frames_stays_at_chance(
    data: tuple[Tensor, ...], question: str, answers: int
) -> None:
    x, y, x_val, y_val = data
    ask = {"same": lambda y: y // 2, "direction": lambda y: y % 2, "class": lambda y: y}[question]
    loss, error = held_out_loss(probe(answers), x, ask(y), x_val, ask(y_val))
    assert loss > math.log(answers) - 3 * error - 0.003


def test_the_same_probe_finds_what_frames_do_tell(data: tuple[Tensor, ...]) -> None:
    """The guard above can fail: a colour that is there or not, and a leak of a former drawing."""
    x, y, x_val, y_val = data
    colours = [torch.tensor([0 in c.colours for c in draw_many(n, s)]).long()
               for n, s in ((1600, "train"), (800, "val"))]  # fmt: skip
    loss, _ = held_out_loss(probe(2), x, colours[0], x_val, colours[1])
    assert loss < 0.35
    # starting points drawn alike instead of midpoints: a clip moving right lies further right
    leaky = [
        torch.where((side_y % 2 == 1)[:, None, None, None, None], side.roll(5, -1), side)
        for side, side_y in ((x, y), (x_val, y_val))
    ]
    loss, error = held_out_loss(probe(2), leaky[0], y % 2, leaky[1], y_val % 2)
    assert loss < math.log(2) - 3 * error - 0.003


def test_a_probe_that_relates_frames_answers_both_questions(data: tuple[Tensor, ...]) -> None:
    def related(x: Tensor) -> Tensor:
        vivid = (x.amax(2, keepdim=True) - x.amin(2, keepdim=True) > 0.7).float()
        colour = (x * vivid).sum((-2, -1)) / 30  # (N, T, 3)
        pair = colour[:, :3].mean(1)[:, :, None] * colour[:, 5:].mean(1)[:, None, :]  # (N, 3, 3)
        here, after = vivid[:, :2], vivid[:, 1:3]
        motion = (here[..., :-3] * after[..., 3:]).sum((1, 2, 3, 4))
        motion = motion - (here[..., 3:] * after[..., :-3]).sum((1, 2, 3, 4))
        return torch.cat([pair.flatten(1), motion[:, None] / 30], 1)

    x, y, x_val, y_val = data
    features, held = related(x), related(x_val)
    for ask in (lambda y: y // 2, lambda y: y % 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 2))
        loss, _ = held_out_loss(model, features, ask(y), held, ask(y_val), epochs=40)
        assert loss < 0.2


# Files


def test_rendering_gives_a_folder_of_classes_and_tells_its_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    root = render_reunion(
        tmp_path / "a" / "reunion", 8, 4, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(done, 12) for done in range(13)]
    for split, count in (("train", 8), ("val", 4)):
        files = sorted(path.relative_to(root) for path in root.glob(f"{split}/*/*"))
        assert len(files) == count
        assert {path.parts[1] for path in files} == set(CLASSES)
    clip = draw_clip(EASY, 0, "val", 3)
    decoded = read(clip_path(root, "val", 3))
    assert decoded.shape == clip.frames.shape
    assert (decoded.float() - clip.frames.float()).abs().mean() < 5
    assert sorted(path.name for path in root.iterdir()) == ["reunion.json", "train", "val"]


def test_an_interrupted_rendering_is_completed_and_a_finished_one_reused(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_reunion(tmp_path, 8, 4, progress=stop)
    early = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*.mp4")}
    assert len(early) == 5
    (tmp_path / "train" / CLASSES[0] / ".00004.mp4.1.tmp").write_bytes(b"half")  # killed in a write
    render_reunion(tmp_path, 8, 4)
    complete = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*.mp4")}
    assert len(complete) == 12
    assert all(complete[path] == when for path, when in early.items())
    seen: list[tuple[int, int]] = []
    render_reunion(tmp_path, 8, 4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(12, 12)]


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    one, two, other = (
        render_reunion(tmp_path / name, 4, 4, seed=seed)
        for name, seed in (("one", 0), ("two", 0), ("other", 1))
    )
    contents = [clip_path(root, "train", 2).read_bytes() for root in (one, two, other)]
    assert contents[0] == contents[1] != contents[2]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    render_reunion(tmp_path / "reunion", 4, 4)
    with pytest.raises(UserError, match=r"other parameters \(colours 4, not 6; seed 0, not 2\)"):
        render_reunion(tmp_path / "reunion", 4, 4, Reunion(colours=6), seed=2)
    with pytest.raises(UserError, match="holds no reunion"):
        render_reunion(tmp_path, 4, 4)
    record = tmp_path / "reunion" / "reunion.json"
    assert json.loads(record.read_text())["train"] == 4
    for text in ("{half", "[1]"):
        record.write_text(text)
        with pytest.raises(UserError, match="cannot be read"):
            render_reunion(tmp_path / "reunion", 4, 4)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not an empty folder"):
        render_reunion(tmp_path / "file", 4, 4)
    with pytest.raises(UserError, match="at least 4 clips"):
        render_reunion(tmp_path / "new", 3, 4)
