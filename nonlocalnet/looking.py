"""The command that shows what a network looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from .errors import UserError
from .files import write_text
from .flags import UsageError, check_output, find_own, find_trained
from .look import View
from .machine import Device
from .terminal import progress_bar, say


def attend(
    run: Positional[Path],
    video: Positional[Path],
    at: UseAppendAction[tuple[str, ...]] = (),
    block: str | None = None,
    top: int = 20,
    count: int = 3,
    columns: bool = False,
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
    html: Path | None = None,
    device: Device | None = None,
    verify: bool = False,
) -> int:
    """What a trained network looks at from chosen places of a video: the paper's Figure 3.

    Args:
        run: Folder of a run, a checkpoint, or the name of a published model.
        video: A video file.
        at: A place, SECONDS:X,Y with X and Y in fractions of width and height, such as
            1.2s:0.40,0.55; may be given several times. Without any, telling places are chosen.
        block: Name of the residual block that the non-local block follows, or all for small
            pictures of each; None is the last one.
        top: How many of the most attended positions to draw.
        count: How many places to choose where none is given.
        columns: Turned round: which positions look at the place, and how much.
        out: The picture, .png, or .mp4 for a film of one place; None is attention.png in the run,
            or here for a published model.
        html: Also write a page in which any place of the clip can be pointed at, in any block.
        device: Where the network runs; None is the best there is.
        verify: First let the network pass the self-test in its file (see convert).
    """
    check_output("--out", out, ".png", ".mp4")
    check_output("--html", html, ".html", ".htm")
    from .explorer import explorer_page
    from .picture import draw, draw_blocks, draw_film
    from .sight import attend_video, parse_position

    try:
        places = [parse_position(text) for text in at]
    except UserError as error:
        raise UsageError(f"--at: {error}") from None
    if top < 1 or count < 1:
        raise UsageError(f"--top and --count are at least 1; they came as {top} and {count}")
    film = out is not None and out.suffix == ".mp4"
    if film and (len(places) > 1 or block == "all"):
        raise UsageError("a film is of one place in one block: give --at once, and no --block all")
    model = find_trained(find_own(run), device, verify)
    view: View = "column" if columns else "row"
    sights = attend_video(model, video, places, block, top, 1 if film else count, view)
    out = out or (run if run.is_dir() else run.parent) / "attention.png"
    if film:
        with progress_bar("drawing") as progress:
            draw_film(sights[0], out, progress)
    else:
        (draw_blocks if block == "all" else draw)(sights, out)
    for sight in sights:
        name = f"{sight.look.block}: " if block == "all" else ""
        say(name + ", ".join(sight.look.words()))
    for caveat in {sight.look.caveat() for sight in sights} - {""}:
        say(caveat)
    say(f"{'film' if film else 'picture'}: {out}")
    if html is not None:
        seconds = places[0][0] if places else None
        some = "all" if block is None else block
        page = explorer_page(model, video, seconds=seconds, blocks=some, top=top)
        write_text(html, page)
        say(f"explorer: {html} ({len(page) / 1e6:.1f} MB)")
    return 0
