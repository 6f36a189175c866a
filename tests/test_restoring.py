"""`nonlocalnet denoise`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nonlocalnet.cli import main


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A square with noise, and beside it without."""
    clean = np.full((40, 48, 3), 60.0)
    clean[10:30, 10:30] = 180
    noise = np.random.default_rng(0).normal(0, 20, clean.shape)
    Image.fromarray(clean.astype(np.uint8)).save(tmp_path / "clean.png")
    Image.fromarray((clean + noise).clip(0, 255).astype(np.uint8)).save(tmp_path / "noisy.png")
    return tmp_path / "noisy.png"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main(["denoise", *map(str, words)])
    out = capsys.readouterr()
    return code, out.out + out.err


def test_an_image(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = image.parent
    code, said = run(
        *(capsys, image, "-o", folder / "out.png", "--reference", folder / "clean.png"),
        *("--picture", folder / "picture.png", "--window", 11),
    )
    assert code == 0
    assert "written" in said
    psnr = [
        float(line.split("PSNR ")[1].split()[0]) for line in said.splitlines() if "PSNR" in line
    ]
    assert psnr[1] > psnr[0] + 5
    with Image.open(folder / "picture.png") as picture:
        assert picture.width > 3 * picture.height


def test_what_a_pixel_is_made_of(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = image.parent / "weights.png"
    code, said = run(capsys, image, "-o", out, "--show-weights", "20,20", "--sigma", 20)
    assert code == 0
    assert "top-20 hold" in said
    with Image.open(out) as picture:
        assert picture.width > 500


def test_a_folder_goes_on_past_what_is_broken(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image.parent / "broken.png").write_bytes(b"no")
    out = image.parent.with_name("new")
    code, said = run(capsys, image.parent, "-o", out, "--sigma", 20, "--window", 5)
    assert code == 1
    assert "broken.png cannot be read" in said
    assert "2 files written, 1 could not be done" in said
    names = ["clean.png", "denoised.jsonl", "noisy.png"]
    assert sorted(p.name for p in out.iterdir()) == names
    (out / "noisy.png").unlink()
    words = (capsys, image.parent, "-o", out, "--window", 5, "--sigma")
    assert "1 files written, 1 were there already, 1 could not" in run(*words, 20)[1]
    assert "2 files written, 1 could not" in run(*words, 21)[1]
    assert "name a folder outside" in run(capsys, image.parent, "-o", image.parent / "x")[1]


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("--sigma", "much"), 2, "--sigma is a number or auto"),
        (("--sigma", "-1"), 2, "--sigma is 0 or above"),
        (("--h=-2",), 2, "--h is above 0"),
        (("--show-weights", "20"), 2, "--show-weights is X,Y"),
        (("--show-weights", "99,0"), 1, "no pixel x 99"),
        (("--picture", "a.gif"), 2, "--picture is a file ending in .png"),
        (("--reference", "{folder}/none.png"), 1, "none.png cannot be read"),
        (("--patch", "41"), 1, "40 rows are fewer than a patch has, 41"),
        (("--patch", "4"), 2, "patch is an odd number"),
    ],
)
def test_what_cannot_be(
    image: Path,
    words: tuple[str, ...],
    code: int,
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = tuple(word.replace("{folder}", str(image.parent)) for word in words)
    try:
        found, said = run(capsys, image, "-o", image.parent / "out.png", "--window", 5, *words)
    except SystemExit as error:  # the command line itself
        found, said = int(str(error.code)), "".join(capsys.readouterr())
    assert found == code
    assert reason in " ".join(said.replace("│", " ").split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, image, "-o", image.with_name("out.png"), "--device", "cuda")
    assert (code, "finds only" in said) == (1, True)


def test_places(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, image, "-o", image)[1].count("is what this is made from") == 1
    assert "--out is a file ending in" in run(capsys, image, "-o", image.with_suffix(".xyz"))[1]
    code, said = run(capsys, image.parent / "none.png", "-o", image.parent / "x.png")
    assert (code, "is not there" in said) == (1, True)
    code, said = run(capsys, image.parent, "-o", image.parent / "x", "--picture", "p.png")
    assert (code, "of one file, no folder" in said) == (2, True)
