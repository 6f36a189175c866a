"""The drawn picture: every mark at its pixel, every word readable, files whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import io
import math
import os
import subprocess
import sys
import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text
from PIL import Image

from nonlocalnet.errors import UserError
from nonlocalnet.look import Key, Look, Sight, centre_of, panels
from nonlocalnet.picture import compose, compose_blocks, draw, draw_film
from nonlocalnet.picture.film import compose_frame
from nonlocalnet.picture.ink import NEGATIVE, POSITIVE, dimmed, pixels
from nonlocalnet.transforms import Box
from nonlocalnet.video import Video


def a_sight(
    frames: int = 8,
    cells: tuple[int, int, int] = (8, 4, 4),
    size: tuple[int, int] = (32, 32),
    signed: bool = False,
    top: int = 20,
    **changes: object,
) -> Sight:
    """Random frames under random weights, on a grid that divides the clip evenly."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(cells, generator=generator, dtype=torch.float64).exp() ** 2
    if signed:
        weights *= torch.randn(cells, generator=generator).sign()
    grid = tuple((s / c, s / c / 2 - 0.5) for s, c in zip((frames, *size), cells, strict=True))
    flat = weights.flatten()
    order = flat.abs().argsort(descending=True)[:top]
    where = [tuple(map(int, np.unravel_index(int(i), cells))) for i in order]
    share = float(flat[order].abs().sum() / flat.abs().sum())
    query = (float(frames // 2), 0.3 * size[0], 0.6 * size[1])
    look = Look(
        network="i3d_tiny",
        block="layer2.0",
        pairwise="dot_product" if signed else "embedded_gaussian",
        mode="spacetime",
        awake=True,
        exact=True,
        sample=0,
        query=query,
        cell=(0, 0, 0),
        centre=query,
        weights=weights,
        grid=grid,
        seen=flat.numel(),
        top=top,
        keys=tuple(Key(float(weights[c]), c, centre_of(c, grid)) for c in where),
        share=share,
        uniform=min(1, top / flat.numel()),
        negative=float(-flat.clamp(max=0).sum() / flat.abs().sum()),
        entropy=2.5,
        relative_entropy=0.6,
        dependence=0.3,
        departure=0.4,
    )
    pixels = torch.randint(256, (frames, *size, 3), generator=generator, dtype=torch.uint8)
    fields = {f.name for f in dataclasses.fields(Look)}
    look = dataclasses.replace(look, **{k: v for k, v in changes.items() if k in fields})
    return Sight(look, pixels, **{k: v for k, v in changes.items() if k not in fields})


CASES = {
    "tiny clip": [a_sight()],
    "three rows": [a_sight(), a_sight(signed=True), a_sight(frames=8, cells=(4, 4, 4))],
    "signed": [a_sight(signed=True)],
    "long clip": [a_sight(32, (32, 4, 4), seconds=tuple(100 + i / 7 for i in range(32)))],
    "few cells of a long clip": [a_sight(32, (4, 7, 7), (224, 224))],
    "wide": [a_sight(8, (8, 4, 8), (45, 80))],
    "tall": [a_sight(4, (2, 8, 4), (80, 45))],
    "image": [a_sight(1, (1, 6, 4), (96, 64))],
    "one frame of keys": [a_sight(8, (1, 4, 4))],
    "untrained, approximate, long names": [
        a_sight(
            frames=2,
            cells=(2, 2, 2),
            awake=False,
            exact=False,
            network="a_network_with_quite_a_long_name_that_its_user_gave_it",
            block="backbone.encoder.stages.3.blocks.11.feed_forward",
            path="/videos/" + 4 * "a long name of a file " + ".mp4",
            seconds=(0.0, 3600.25),
        )
    ],
    "no weight at all": [a_sight(weights=torch.zeros(8, 4, 4), keys=())],
    "space only": [a_sight(mode="space", seen=16)],
}


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.texts if text.get_text()]


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


def arrows(figure: Figure) -> list[FancyArrowPatch]:
    return [a for a in figure.get_children() if isinstance(a, FancyArrowPatch)]


@pytest.mark.parametrize("name", CASES)
def test_words_are_inside_and_apart(name: str) -> None:
    figure = compose(CASES[name])
    figure.canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1, text
        assert box.y1 <= figure.bbox.y1, text
    for (one, a), (other, b) in combinations(boxes, 2):
        assert not a.overlaps(b), f"{one!r} lies on {other!r}"


@pytest.mark.parametrize("name", CASES)
def test_words_stay_off_the_frames(name: str) -> None:
    figure = compose(CASES[name])
    figure.canvas.draw()
    for axes in figure.axes:
        if axes.images:
            frame = axes.get_window_extent()
            assert frame.x1 <= figure.bbox.x1
            assert not [
                t.get_text() for t in texts(figure) if t.get_window_extent().overlaps(frame)
            ]


def test_every_mark_lies_on_its_pixel() -> None:
    sight = a_sight(frames=8, cells=(4, 4, 4), top=10)
    look, figure = sight.look, compose([sight])
    shown = panels(look, 8, 8)
    frames = figure.axes[: len(shown)]
    assert [len(axes.images) for axes in frames] == [1] * 4

    def on_figure(panel: int, y: float, x: float) -> np.ndarray:
        return frames[panel].transData.transform((x, y)) / figure.dpi

    home = [panel.frame for panel in shown].index(4)
    start = on_figure(home, *look.query[1:])
    (dot,) = [a for a in figure.get_children() if isinstance(a, Line2D)]
    assert dot.get_xydata()[0] == pytest.approx(start)
    found = [np.array(arrow._posA_posB) for arrow in arrows(figure)]  # in drawing order
    assert len(found) == 10
    cells = [panel.cell for panel in shown]
    for (a, b), key in zip(found, reversed(look.keys), strict=True):
        assert a == pytest.approx(start)
        assert b == pytest.approx(on_figure(cells.index(key.cell[0]), *key.centre[1:]))


def test_heavier_is_thicker_and_negative_looks_different() -> None:
    sight = a_sight(signed=True)
    drawn = arrows(compose([sight]))[::-1]
    widths = [arrow.get_linewidth() for arrow in drawn]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 1.3 * widths[-1]
    assert {key.weight < 0 for key in sight.look.keys} == {True, False}
    for arrow, key in zip(drawn, sight.look.keys, strict=True):
        (colour,) = {NEGATIVE if key.weight < 0 else POSITIVE}
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        assert arrow.get_edgecolor()[:3] == pytest.approx((red, green, blue))
        assert (arrow.get_linestyle() == "-") == (key.weight > 0)


def test_a_query_that_looks_at_itself_gets_a_ring() -> None:
    sight = a_sight(top=5)
    key = sight.look.keys[0]
    look = dataclasses.replace(sight.look, query=key.centre)
    figure = compose([dataclasses.replace(sight, look=look)])
    figure.canvas.draw()
    rings = [
        a for a in figure.get_children() if isinstance(a, Line2D) and a.get_fillstyle() == "none"
    ]
    assert len(rings) == 1
    assert len(arrows(figure)) == 4


def test_keys_in_frames_not_shown_are_counted() -> None:
    sight = a_sight(32, (32, 4, 4), top=40)
    shown = {panel.cell for panel in panels(sight.look, 32, 8)}
    hidden = sum(key.cell[0] not in shown for key in sight.look.keys)
    assert hidden > 0
    figure = compose([sight])
    assert f"{hidden} of these 40 keys are in frames not shown" in words(figure).replace("\n", " ")
    assert len(arrows(figure)) == 40 - hidden
    assert "pale bars: frames not shown" in words(figure).replace("\n", " ")


def test_the_words_say_what_there_is_to_know() -> None:
    plain = words(compose([a_sight()]))
    look = a_sight().look
    assert plain.startswith("i3d_tiny, non-local block after layer2.0: embedded_gaussian\n")
    for phrase in look.words():
        assert phrase in plain
    assert "uniform 16 %" in plain
    assert "untrained" not in plain
    assert "approximate" not in plain
    assert "negative" not in plain
    sad = words(compose([a_sight(awake=False, exact=False, mode="time", seen=8, path="/a/b.mp4")]))
    assert "this block is untrained: its output is still exactly its input" in sad
    assert "places are approximate" in sad
    assert "in time only" in sad
    assert "b.mp4" in sad
    assert "orange, dashed: negative weights" in words(compose([a_sight(signed=True)]))


def test_what_is_not_shared_stands_at_each_sight() -> None:
    both = words(compose([a_sight(path="/a/first.mp4"), a_sight(path="/a/second.mp4")]))
    assert both.startswith("What positions look at\n")
    assert both.count("i3d_tiny") == 2
    assert both.index("first.mp4") < both.index("second.mp4")
    assert words(compose([a_sight(), a_sight()])).count("i3d_tiny") == 1


def test_the_query_is_named_in_pixels_of_the_video() -> None:
    seconds = tuple(i / 4 for i in range(8))
    sight = a_sight(seconds=seconds, box=Box(10, 100, 64), query=(4.0, 8.0, 16.0))
    # 64 pixels shown as 32: 10 + 8.5 * 2 - 0.5 and 100 + 16.5 * 2 - 0.5
    assert "1   from x 132, y 26 at 1.00 s" in words(compose([sight]))


def test_the_brightest_cells_are_the_heaviest() -> None:
    weights = torch.zeros(8, 4, 4, dtype=torch.float64)
    weights[4, 1, 2] = 3.0
    weights[4, 3, 0] = -3.0
    figure = compose([a_sight(weights=weights, negative=0.5)])
    overlay = figure.axes[8 + 4].images[1].get_array()  # after eight frames
    opaque = overlay[..., 3] > 0
    assert opaque.sum() == 2 * 8 * 8
    assert opaque[8:16, 16:24].all()
    assert opaque[24:32, 0:8].all()
    blue, orange = overlay[12, 20], overlay[28, 4]
    assert blue[2] >= blue[0]
    assert orange[0] > orange[2]
    assert not any((a.images[1].get_array()[..., 3] > 0).any() for a in figure.axes[8:12])


def test_bars_are_the_weight_per_frame() -> None:
    for case in (a_sight(signed=True), a_sight(32, (32, 4, 4))):
        figure = compose([case])
        (bars,) = [axes for axes in figure.axes if len(axes.patches) > 1]
        heights = [p.get_height() for p in bars.patches]
        positive, negative = case.look.per_frame.tolist()
        assert sum(heights) == pytest.approx(1)
        assert sorted(heights) == pytest.approx(sorted([*positive, *(n for n in negative if n)]))
        dashed = bars.lines[1].get_ydata()
        assert dashed[0] == pytest.approx(1 / len(positive))


def test_small_frames_are_enlarged_as_squares() -> None:
    data = draw([a_sight()])
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    assert picture.width >= 1200
    figure = compose([a_sight()])
    assert {image.get_interpolation() for image in figure.axes[0].images} == {"nearest"}
    large = compose([a_sight(8, (8, 4, 4), (256, 256))])
    assert {image.get_interpolation() for image in large.axes[0].images} == {"antialiased"}


def test_dark_and_bright_frames_are_dimmed_alike() -> None:
    pixels = np.random.default_rng(0).integers(60, 100, (32, 32, 3)).astype(np.uint8)
    dark, bright = dimmed(pixels), dimmed((pixels * 2.5).astype(np.uint8))
    assert bright.max() < 130
    assert abs(float(dark.mean()) - float(bright.mean())) < 12
    assert dimmed(np.zeros((4, 4, 3), np.uint8)).max() == 0


def test_the_same_sight_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    data = draw([a_sight()], path)
    assert path.read_bytes() == data == draw([a_sight()])
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"picture\.png cannot be written: "):
        draw([a_sight()], tmp_path / "file" / "picture.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        draw([a_sight()], tmp_path / "folder.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    device = tmp_path / "device.png"
    device.symlink_to("/dev/null")
    with pytest.raises(UserError, match="cannot be written: it is no regular file"):
        draw([a_sight()], device)
    assert device.is_symlink()


def test_a_folder_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(UserError, match="cannot be written: Read-only file system"):
        draw([a_sight()], tmp_path / "picture.png")


def test_small_pictures_of_several_blocks() -> None:
    sights = [
        a_sight(block=block, cells=cells, path="/a/b.mp4", signed=signed)
        for block, cells, signed in (
            ("layer2.1", (8, 8, 8), False),
            ("layer3.3", (8, 4, 4), True),
            ("layer3.5", (4, 4, 4), False),
        )
    ]
    figure = compose_blocks(sights)
    text = words(figure)
    assert text.startswith("i3d_tiny, block by block\nb.mp4\nfrom x 19, y 10 at frame 4\n")
    assert text.index("layer2.1: emb") < text.index("layer3.3: dot") < text.index("layer3.5: emb")
    for sight in sights:
        assert sight.look.words()[0] in text
    assert "orange: negative weights" in text
    assert not arrows(figure)
    dots = [a for a in figure.get_children() if isinstance(a, Line2D)]
    assert len(dots) == 3
    frames = [axes for axes in figure.axes if len(axes.images) == 2 and len(axes.get_images())]
    assert len(frames) >= 8 + 8 + 4  # and the scales
    two = compose_blocks([*sights, a_sight(block="layer2.1", query=(1.0, 3.0, 3.0))])
    assert "2   from x 3, y 3 at frame 1, non-local block after layer2.1" in words(two)


def test_a_column_has_arrows_towards_the_place() -> None:
    row, column = a_sight(top=5), a_sight(top=5, view="column", received=2.5, departure=math.nan)
    there, back = ([a._posA_posB for a in arrows(compose([s]))] for s in (row, column))
    assert [tuple(ends) for ends in back] == [(b, a) for a, b in there]
    text = words(compose([column]))
    assert "to x 19, y 10 at frame 4" in text
    assert "receives 2.5 times an equal share" in text
    assert "heaviest\nqueries" in text
    assert "average map" not in text


def test_concatenation_is_told_what_it_always_does() -> None:
    text = words(compose([a_sight(pairwise="concatenation")])).replace("\n", " ")
    assert "concatenation orders all keys alike" in text
    assert "(here 128 of 128)" in text


def test_a_film_shows_every_frame_with_what_ends_there(tmp_path: Path) -> None:
    sight, done = a_sight(frames=6, cells=(3, 4, 4), top=9), []
    draw_film(sight, tmp_path / "film.mp4", lambda *now: done.append(now))
    assert done == [(i + 1, 6) for i in range(6)]
    with Video(tmp_path / "film.mp4") as video:
        assert len(video) == 6
        assert video.timestamps.tolist() == pytest.approx([i / 4 for i in range(6)])
        shown = video.frames(range(6)).float()
    for frame, cell in enumerate((0, 0, 1, 1, 2, 2)):
        figure = compose_frame(sight, frame)
        ends = [key for key in sight.look.keys if key.cell[0] == cell]
        assert len(arrows(figure)) == len(ends)
        wanted = torch.from_numpy(pixels(figure)).float()
        assert float((shown[frame] - wanted).abs().mean()) < 4  # H.264 halves the colours
    assert [p.name for p in tmp_path.iterdir()] == ["film.mp4"]
    with pytest.raises(UserError, match="cannot be written"):
        draw_film(sight, tmp_path)


def test_names_in_any_script() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw([a_sight(path="/a/视频 $x_1$ ünï \udcff.mp4")])
    assert "?? $x_1$ ünï ?.mp4" in words(compose([a_sight(path="/a/视频 $x_1$ ünï \udcff.mp4")]))


def test_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="no sight"):
        draw([])


def test_matplotlib_keeps_its_state() -> None:
    code = (
        "import sys, matplotlib; before = matplotlib.rcParams.copy(); import nonlocalnet.picture;"
        "from nonlocalnet.picture.ink import blank, png, text; f = blank(2, 2);"
        "text(f, 1, 1, 'a', 8); png(f); now = matplotlib.rcParams;"
        "assert before and all(dict.get(now, k) == dict.get(before, k) for k in before);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; import nonlocalnet.attention;"
        "import nonlocalnet.picture"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'ImportError: drawing needs matplotlib: pip install "nonlocalnet[train]"' in done.stderr
