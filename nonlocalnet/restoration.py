"""Images without their noise, from files to files, and what `film_restoration` shares with them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .denoise import Options, Plan, Sigma, as_type, as_video, check_numbers, scale_of
from .errors import UserError
from .files import replacing
from .folders import VIDEO_SUFFIXES
from .look import Sight
from .machine import Device
from .neighbours import Pixel, sight_of
from .video_writing import WRITABLE

IMAGES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"))
LOSSLESS = frozenset((".png", ".tif", ".tiff", ".bmp"))
LEDGER = "denoised.jsonl"  # of a folder: which files are done
QUALITY = 95  # of what is written as JPEG or WebP
MODES = {"1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "PA": "RGBA"}  # read as

Pixels = NDArray[np.generic]


@dataclass(frozen=True)
class Wish:
    """What is asked for, and where it is computed; sigma and h in levels of the file."""

    sigma: Sigma
    h: float | None
    options: Options
    device: Device = "cpu"


@dataclass(frozen=True)
class Restored:
    """A file that was written: sigma and h as used; of an image, the pixels before and after.

    damaged: pictures of a video that were found so.
    """

    path: Path
    sigma: float
    h: float
    frames: int = 1
    damaged: int = 0
    before: Pixels | None = None
    after: Pixels | None = None


class Picture(NamedTuple):
    """Pixels (H, W) or (H, W, C) as stored, uint8, uint16 or float32.

    alpha: (H, W), if there is a channel of it. profile: ICC's, of the colours.
    """

    pixels: Pixels
    alpha: Pixels | None
    profile: bytes | None


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its name."""
    return path.suffix.lower() in IMAGES


def find_files(folder: Path) -> list[Path]:
    """Every image and video below a folder, sorted. Raises `UserError` if there is none."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.startswith(".")
        and (is_image(path) or path.suffix.lower() in VIDEO_SUFFIXES)
    ]
    if not found:
        raise UserError(f"{folder}: there is neither an image nor a video file in this folder")
    return found


def places(files: list[Path], folder: Path, out: Path) -> dict[Path, Path]:
    """Each file of a folder, and where in `out` it is written, with an ending that can be.

    The new ending follows the old one where two files would become one.
    """
    new = {path: path.with_suffix(_ending(path)) for path in files}
    count = Counter(new.values())
    return {
        path: out / (place if count[place] == 1 else _longer(path)).relative_to(folder)
        for path, place in new.items()
    }


def _ending(path: Path) -> str:
    good, other = (LOSSLESS, ".png") if is_image(path) else (WRITABLE, ".mp4")
    return path.suffix if path.suffix.lower() in good else other


def _longer(path: Path) -> Path:
    ending = _ending(path)
    return path if ending == path.suffix else path.with_name(path.name + ending)


def read_image(path: Path) -> Picture:
    """An image as it is shown: upright. Raises `UserError`."""
    try:
        with Image.open(path) as image:
            count = getattr(image, "n_frames", 1)
            if count > 1:
                raise UserError(f"{path} holds {count} pictures; expected an image of one")
            mode = MODES.get(image.mode, image.mode)
            if "transparency" in image.info:
                mode = "LA" if mode == "L" else "RGBA"
            upright = ImageOps.exif_transpose(image)
            pixels = np.asarray(upright.convert(mode) if mode != image.mode else upright)
            profile = image.info.get("icc_profile")
    except (
        OSError,
        UnidentifiedImageError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        reason = getattr(error, "strerror", None) or "it is damaged, or no image that is known"
        raise UserError(f"{path} cannot be read: {reason}") from error
    if pixels.dtype == np.int32:  # 16 bits, in some files
        pixels = pixels.clip(0, 65535).astype(np.uint16)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if mode not in ("RGBA", "LA"):
        return Picture(pixels, None, profile)
    colours = pixels[..., 0] if mode == "LA" else pixels[..., :-1]
    return Picture(colours, pixels[..., -1], profile)


def restore_image(path: Path, out: Path, wish: Wish) -> Restored:
    """An image without its noise, written whole or not at all. Raises `UserError`."""
    pixels, alpha, profile = read_image(path)
    x = as_tensor(pixels)
    plan = plan_for(path, x, wish)
    y = as_type(plan.denoise(as_video(x.to(wish.device))), x.dtype)[0, :, 0].cpu()
    after = y.permute(1, 2, 0).numpy().reshape(pixels.shape)
    whole = Image.fromarray(after if alpha is None else np.dstack((after, alpha)))
    kind = Image.registered_extensions()[out.suffix.lower()]
    with replacing(out) as unfinished:
        try:
            whole.save(unfinished, format=kind, icc_profile=profile, quality=QUALITY)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{out} cannot hold such pixels ({pixels.dtype}); use .png or .tif"
            ) from error
    return Restored(out, plan.sigma, float(plan.h), before=pixels, after=after)


def as_tensor(pixels: Pixels) -> Tensor:
    """(H, W) or (H, W, C) -> (1, C, 1, H, W)."""
    x = torch.from_numpy(np.array(pixels))
    x = x.unsqueeze(2) if x.dim() == 2 else x
    return x.permute(2, 0, 1)[None, :, None]


def white_of(pixels: Pixels) -> float:
    """The largest level of an image's type; 1 of floats."""
    return {"uint8": 255.0, "uint16": 65535.0}.get(pixels.dtype.name, 1.0)


def plan_for(path: Path, x: Tensor, wish: Wish) -> Plan:
    """What is done to x (1, C, T, H, W) of a file. Raises `UserError` with its name."""
    try:
        numbers = as_video(x)
        check_numbers(numbers)
        return Plan.of(numbers, x.dtype, wish.sigma, wish.h, wish.options)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def stamp_of(path: Path, wish: Wish) -> list[Any]:
    """What a result is made from, as JSON has it: the file as it is now, and all that is asked."""
    status = path.stat()
    of_file = [str(path.absolute()), status.st_size, status.st_mtime_ns]
    return [*of_file, wish.sigma, wish.h, dataclasses.asdict(wish.options)]


def sight_in_image(path: Path, wish: Wish, x: int, y: int) -> Sight:
    """What a pixel of an image is made of. Raises `UserError`."""
    pixels = read_image(path).pixels
    return sight_in(path, as_tensor(pixels), wish, Pixel(0, y, x), None)


def sight_in(
    path: Path, x: Tensor, wish: Wish, pixel: Pixel, seconds: tuple[float, ...] | None
) -> Sight:
    """The same of x (1, C, T, H, W), the frames of a file around a pixel, shown at `seconds`."""
    plan = plan_for(path, x, wish)
    shown = (as_video(x)[0].permute(1, 2, 3, 0) * (255 / scale_of(x.dtype))).round().clamp(0, 255)
    shown = shown.byte().expand(*shown.shape[:3], 3) if shown.shape[3] == 1 else shown.byte()
    try:
        return sight_of(as_video(x), pixel, plan, shown, seconds, str(path))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
