"""Images without their noise, from files to files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nonlocalnet.denoise import Options, nl_means
from nonlocalnet.errors import UserError
from nonlocalnet.restoration import (
    Wish,
    find_files,
    places,
    read_image,
    restore_image,
    sight_in_image,
)

SMALL = Options(patch=3, window=5)
WISH = Wish(10.0, 8.0, SMALL)


def levels(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(top // 3, top // 2, shape).astype(dtype)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("grey.png", levels(20, 24)),
        ("colour.png", levels(20, 24, 3)),
        ("alpha.png", levels(20, 24, 4)),
        ("deep.png", levels(20, 24, dtype=np.uint16)),
        ("float.tif", np.random.default_rng(0).random((20, 24)).astype(np.float32)),
    ],
)
def test_images_of_every_kind(name: str, pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / name)
    white = {"uint8": 255, "uint16": 65535, "float32": 1}[pixels.dtype.name]
    wish = Wish(0.1 * white, 0.08 * white, SMALL)
    done = restore_image(tmp_path / name, tmp_path / "new" / name, wish)
    found = np.asarray(Image.open(done.path))
    assert (found.dtype, found.shape) == (pixels.dtype, pixels.shape)
    colours = pixels[..., :3] if pixels.ndim == 3 else pixels[..., None]
    x = torch.from_numpy(colours.copy()).permute(2, 0, 1)
    want = nl_means(x, 0.1 * white, 0.08 * white, patch=3, window=5).permute(1, 2, 0).numpy()
    whole = found[..., None] if found.ndim == 2 else found
    assert np.array_equal(whole[..., :3], want)
    if name == "alpha.png":
        assert np.array_equal(found[..., 3], pixels[..., 3])


def test_an_image_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    cut = tmp_path / "cut.png"
    Image.fromarray(levels(64, 64)).save(cut)
    cut.write_bytes(cut.read_bytes()[:1500])
    tiny = tmp_path / "tiny.png"
    Image.fromarray(levels(2, 2)).save(tiny)
    for path, words in ((bad, "cannot be read"), (cut, "cannot be read"), (tiny, "give a smaller")):
        with pytest.raises(UserError, match=words):
            restore_image(path, tmp_path / "out" / "x.png", WISH)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/x.jpg", "b.mp4", "c.txt", ".d.png", "e.avi"):
        (tmp_path / name).write_bytes(b"")
    found = find_files(tmp_path)
    assert [str(p.relative_to(tmp_path)) for p in found] == ["a/x.jpg", "b.mp4", "e.avi"]
    new = places(found, tmp_path, Path("new"))
    assert [str(place) for place in new.values()] == ["new/a/x.png", "new/b.mp4", "new/e.mp4"]
    (tmp_path / "a" / "x.png").write_bytes(b"")
    new = places(find_files(tmp_path), tmp_path, Path("new"))
    assert [p.name for p in new.values()] == ["x.jpg.png", "x.png", "b.mp4", "e.mp4"]
    with pytest.raises(UserError, match="neither an image nor a video"):
        find_files(tmp_path / "a" / "none")


def test_what_a_pixel_is_made_of(tmp_path: Path) -> None:
    Image.fromarray(levels(20, 24, dtype=np.uint16)).save(tmp_path / "x.png")
    sight = sight_in_image(tmp_path / "x.png", Wish(5000.0, 4000.0, SMALL), 3, 5)
    assert sight.look.query == (0, 5, 3)
    assert sight.frames.shape == (1, 20, 24, 3)
    assert sight.frames.dtype == torch.uint8
    assert sight.look.weights.sum() == pytest.approx(1)


def test_read_image_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_image(tmp_path / "none.png")


def test_images_as_they_are_shown(tmp_path: Path) -> None:
    """Upright, with their transparency and profile, whatever the order of their bytes."""
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter
    wide = levels(20, 30, 3)
    Image.fromarray(wide).save(tmp_path / "turned.png", exif=turned, icc_profile=b"a profile")
    done = restore_image(tmp_path / "turned.png", tmp_path / "new.png", WISH)
    with Image.open(done.path) as new:
        assert (new.size, new.info["icc_profile"]) == ((20, 30), b"a profile")
    assert np.array_equal(done.before, np.rot90(wide, -1))
    few = Image.fromarray(levels(20, 24)).quantize(8)
    few.save(tmp_path / "few.png", transparency=3)
    pixels, alpha, _ = read_image(tmp_path / "few.png")
    assert (pixels.shape, set(np.unique(alpha))) == ((20, 24, 3), {0, 255})
    deep = levels(20, 24, dtype=np.uint16)
    with Image.new("I;16B", (24, 20)) as other:
        other.frombytes(deep.astype(">u2").tobytes())
        other.save(tmp_path / "other.tif")
    assert np.array_equal(read_image(tmp_path / "other.tif").pixels, deep)
    assert (
        restore_image(tmp_path / "other.tif", tmp_path / "deep.tif", WISH).after.dtype == deep.dtype
    )
    pages = [Image.fromarray(levels(20, 24)) for _ in range(2)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match="holds 2 pictures; expected an image of one"):
        read_image(tmp_path / "pages.tif")
