"""The command that takes noise away."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tyro.conf import Positional

from .denoise import Options, Sigma
from .errors import UserError
from .files import check_place
from .flags import Interrupted, Out, UsageError, best_device, check_output
from .machine import Device
from .terminal import progress_bar, say

if TYPE_CHECKING:
    from .restoration import Pixels, Restored, Wish

Result = TypeVar("Result")

PLACE = re.compile(r"(?:(\d+\.?\d*|\.\d+)s?:)?(\d{1,6}),(\d{1,6})")


def denoise(
    source: Positional[Path],
    out: Out,
    options: Options,
    sigma: str = "auto",
    h: float | None = None,
    reference: Path | None = None,
    picture: Path | None = None,
    show_weights: str | None = None,
    device: Device | None = None,
) -> int:
    """NL-means on an image, a video, or a folder of them: the non-local operation on patches.

    A video is read once, in bounded memory; its times and its sound stay. Stopped or killed, the
    same command goes on where it was, in a video too. Exits with 1 if a file of a folder could not
    be done; the others are written all the same.

    Args:
        source: An image, a video, or a folder.
        out: The file to write; of a folder, the folder.
        options: How it is done.
        sigma: The noise, in levels of the file (0 to 255 in most); auto estimates it.
        h: How unlike patches may be, in the same levels; None follows from sigma.
        reference: The image, or of a video its middle frame, without noise: tells PSNR and SSIM.
        picture: A .png of before, after and what was taken away.
        show_weights: X,Y in pixels: write a picture of what that pixel is made of instead; of a
            video SECONDS:X,Y.
        device: Where it is computed; None is a CUDA GPU if there is one, else the CPU.
    """
    wish = _wish(sigma, h, options, device)
    check_output("--picture", picture, ".png")
    if source.is_dir():
        if reference or picture or show_weights:
            raise UsageError("--reference, --picture and --show-weights are of one file, no folder")
        return _stoppable(lambda: _folder(source, out, wish))
    if not source.exists():
        raise UserError(f"{source} is not there; expected an image, a video or a folder of them")
    if show_weights is not None:
        return _weights(source, out, wish, show_weights)
    clean = _reference(reference)
    done = _stoppable(lambda: _restore(source, out, wish))
    _told(done)
    if reference or picture:
        _compare(done, source, clean, picture)
    return 0


def _reference(path: Path | None) -> Pixels | None:
    if path is None:
        return None
    from . import noise  # noqa: F401  # needs scikit-image, and long work comes first
    from .restoration import read_image

    return read_image(path).pixels


def _stoppable(work: Callable[[], Result]) -> Result:
    try:
        return work()
    except KeyboardInterrupt:
        raise Interrupted("stopped; the same command goes on from here") from None


def _wish(sigma: str, h: float | None, options: Options, device: Device | None) -> Wish:
    from .restoration import Wish

    try:
        level: Sigma = "auto" if sigma == "auto" else float(sigma)
    except ValueError:
        raise UsageError(f"--sigma is a number or auto; it came as {sigma!r}") from None
    if level != "auto" and not 0 <= level < float("inf"):
        raise UsageError(f"--sigma is 0 or above; it came as {sigma}")
    if h is not None and not 0 < h < float("inf"):
        raise UsageError(f"--h is above 0; it came as {h:g}")
    best = best_device(device)
    return Wish(level, h, options, best if device or best == "cuda" else "cpu")


def _restore(source: Path, out: Path, wish: Wish) -> Restored:
    from .film_restoration import restore_video
    from .restoration import IMAGES, LOSSLESS, is_image, restore_image
    from .video_writing import WRITABLE

    if is_image(source):
        endings = sorted(LOSSLESS) if out.suffix.lower() not in IMAGES else [out.suffix.lower()]
    else:
        endings = list(WRITABLE)
    check_output("--out", out, *endings)
    if out.exists() and out.samefile(source):
        raise UserError(f"{out} is what this is made from; give what is written another name")
    if is_image(source):
        return restore_image(source, out, wish)
    with progress_bar(f"denoising {source.name}") as progress:
        return restore_video(source, out, wish, progress)


def _told(done: Restored) -> None:
    frames = f"{done.frames:,} frames, " if done.frames > 1 else ""
    damaged = f"{done.damaged:,} damaged, " if done.damaged else ""
    say(f"{frames}{damaged}sigma {done.sigma:.3g}, h {done.h:.3g}; written: {done.path}")


def _folder(folder: Path, out: Path, wish: Wish) -> int:
    from .ledger import Ledger
    from .restoration import LEDGER, find_files, places, stamp_of

    if out.exists() and not out.is_dir():
        raise UsageError(f"--out of a folder is a folder; {out} is none")
    if out.absolute().is_relative_to(folder.absolute()):
        raise UserError(f"{out} lies in {folder}; name a folder outside of what is read")
    files = find_files(folder)
    check_place(out / LEDGER)
    broken = kept = 0
    with Ledger(out / LEDGER) as ledger:
        for path, place in places(files, folder, out).items():
            key, stamp = str(place.relative_to(out)), stamp_of(path, wish)
            if place.exists() and ledger.get(key, stamp) == [place.stat().st_size]:
                kept += 1
                continue
            try:
                _told(_restore(path, place, wish))
            except UserError as error:
                broken += 1
                say(str(error))
            else:
                ledger.add(key, stamp, [place.stat().st_size])
    were = f", {kept} were there already" if kept else ""
    bad = f", {broken} could not be done" if broken else ""
    say(f"{len(files) - kept - broken} files written{were}{bad}")
    return int(broken > 0)


def _compare(done: Restored, source: Path, clean: Pixels | None, picture: Path | None) -> None:
    """PSNR and SSIM, and the picture of before and after."""
    from .film_restoration import middle_of
    from .restoration import white_of

    before, after = done.before, done.after
    if before is None or after is None:
        before, after = middle_of(source, done.path)
    white = white_of(before)
    names = {"before": "before", "after": "after"}
    if clean is not None:
        from .noise import likeness  # needs scikit-image

        if clean.shape != before.shape or clean.dtype != before.dtype:
            raise UserError(
                f"the reference has {clean.shape} pixels of {clean.dtype}, and {source}"
                f" {before.shape} of {before.dtype}; a reference is of the same kind"
            )
        for name, pixels in (("before", before), ("after", after)):
            psnr, ssim = likeness(pixels, clean, white)
            names[name] = f"{name}: PSNR {psnr:.2f} dB, SSIM {ssim:.3f}"
            say(names[name])
    if picture is None:
        return
    from .files import replacing
    from .picture.restored import SPAN, draw_restored, method_noise, shown

    panels = [
        (names["before"], shown(before, white)),
        (names["after"], shown(after, white)),
    ]
    if clean is not None:
        panels.append(("reference", shown(clean, white)))
    what = (
        "method noise, before − after" if done.before is not None else "method noise, H.264's loss"
    )
    noise = f"{what}; black to white is ±{SPAN:g} sigma"
    panels.append((noise, method_noise(before, after, done.sigma)))
    words = [f"sigma {done.sigma:.3g}", f"h {done.h:.3g}"]
    with replacing(picture) as unfinished:
        unfinished.write_bytes(draw_restored(f"NL-means of {source.name}", panels, words))
    say(f"picture: {picture}")


def _weights(source: Path, out: Path, wish: Wish, place: str) -> int:
    match = PLACE.fullmatch(place.replace(" ", ""))
    if match is None:
        raise UsageError(
            "--show-weights is X,Y in pixels from the top left, such as 120,80, or SECONDS:X,Y of a"
            f" video; it came as {place!r}"
        )
    check_output("--out", out, ".png")
    from .film_restoration import sight_in_video
    from .picture import draw
    from .restoration import is_image, sight_in_image

    seconds, x, y = match.groups()
    if is_image(source):
        sight = sight_in_image(source, wish, int(x), int(y))
    else:
        sight = sight_in_video(source, wish, float(seconds or 0), int(x), int(y))
    draw([sight], out)
    say(", ".join(sight.look.words()))
    say(f"picture: {out}")
    return 0
