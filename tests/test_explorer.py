"""The explorer: its rows and columns in Chromium against those of Python, and what a hand does."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import confine
from torch import Tensor, nn

from nonlocalnet import create_model, insert
from nonlocalnet.attention import attend
from nonlocalnet.card import card_of, set_card
from nonlocalnet.errors import UserError
from nonlocalnet.explorer import compose, explorer_page
from nonlocalnet.look import Look
from nonlocalnet.ops import PAIRWISE
from nonlocalnet.scene import scenes
from nonlocalnet.transforms import normalize
from nonlocalnet.video import write_video

QUERIES = [(0, 0, 0), (2, 13, 9), (5, 23, 19), (3, 2, 18)]
ALIKE = 2e-3  # of a row's whole weight: embeddings in half precision have 11 bits


def frames_of(count: int = 6, height: int = 24, width: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def network(names: tuple[str, ...] = ("layer2.0",), **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_model(
        "c2d_tiny", 4, names, width=8, **{"zero_init": "none", "init": "msra", **options}
    ).eval()


def clip_of(model: nn.Module, frames: Tensor) -> Tensor:
    return normalize(frames.permute(3, 0, 1, 2), card_of(model))


def page_of(model: nn.Module, **options: Any) -> str:
    frames = frames_of()
    return compose(model, clip_of(model, frames), frames, **options)


@pytest.fixture
def opened(chromium: Any, tmp_path: Path) -> Any:
    """Opens a page of HTML as a file; it may ask for nothing, and no script may fail."""
    pages = []

    def open_page(text: str, width: int = 1000, touch: bool = False) -> Any:
        path = tmp_path / f"page{len(pages)}.html"
        path.write_text(text, encoding="utf-8")
        page = chromium.new_page(viewport={"width": width, "height": 800}, has_touch=touch)
        page.set_default_timeout(20_000)
        refused, failed = confine(page, path.as_uri()), []
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("console", lambda said: failed.append(said.text) if said.type == "error" else None)
        page.goto(path.as_uri())
        page.wait_for_function("() => document.body.dataset.ready === 'yes'")
        pages.append((page, refused, failed))
        return page

    yield open_page
    for page, refused, failed in pages:
        assert list(refused) == failed == []
        page.close()


def settled(page: Any) -> None:
    """After a change has been drawn."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def shown(page: Any) -> dict[str, Any]:
    """What the page shows now: where, and the figures it says."""
    settled(page)
    found: dict[str, Any] = page.evaluate(
        """(() => { const s = look(); return { place: s.place, cell: s.cell,
        heaviest: s.heaviest, weights: Array.from(s.map.weights), block: state.block,
        frame: state.frame, words: Array.from($("figures").children, e => e.innerText) }; })()"""
    )
    return found


def numbers_in(words: tuple[str, ...] | list[str]) -> list[float]:
    return [float(n) for n in re.findall(r"\d+\.?\d*", " ".join(words))]


def own(theta: Tensor, phi: Tensor) -> Tensor:
    return (theta @ phi.transpose(1, 2)).tanh()


CASES: list[tuple[Any, dict[str, Any]]] = [
    *((f, {"subsample": s}) for f, s in product(PAIRWISE, ["before", "after"])),
    ("embedded_gaussian", {"mode": "space", "scale": "1/sqrt(d)"}),
    ("dot_product", {"mode": "time"}),
    ("concatenation", {"temporal_group": 2, "subsample": "none"}),
    ("gaussian", {"causal": 3}),
    ("dot_product", {"causal": 2, "mode": "time"}),
    (own, {"mode": "space"}),
]


def test_rows_and_columns_are_those_of_python(opened: Callable[..., Any]) -> None:
    """All functions, modes and sub-samplings in one browser; figures, too."""
    for pairwise, options in CASES:
        model = network(pairwise=pairwise, **options)
        page = opened(page_of(model, top=7))
        for view in ("row", "column"):
            looks = attend(model, clip_of(model, frames_of()), QUERIES, top=7, view=view)
            page.evaluate("view => change({ view })", view)
            for query, look in zip(QUERIES, looks, strict=True):
                page.evaluate("at => change({ at })", list(query))
                check(shown(page), look)


def check(found: dict[str, Any], look: Look) -> None:
    weights = look.weights.flatten().numpy()
    if look.view == "row":
        weights = weights / (np.abs(weights).sum() or 1)
    apart = np.abs(np.array(found["weights"]) - weights).sum() / 2
    assert apart < ALIKE * max(1.0, np.abs(weights).sum())
    said, wanted = numbers_in(found["words"]), numbers_in(look.words())
    np.testing.assert_allclose(said, wanted, rtol=0.02, atol=0.51)  # they are rounded


def test_the_page_says_how_exact_it_is(opened: Callable[..., Any]) -> None:
    model = network()
    page = opened(page_of(model))
    (told,) = page.evaluate("blocks.map(block => block.error)")
    looks = attend(model, clip_of(model, frames_of()), count=8)  # of the same candidates
    worst = 0.0
    for look in looks:
        page.evaluate("at => change({ at })", list(look.query))
        wanted = look.weights.flatten().numpy()
        worst = max(worst, np.abs(np.array(shown(page)["weights"]) - wanted).sum() / 2)
    assert 0 < worst <= told * 1.01 + 1e-6
    assert "differ by" in page.inner_text("#foot")


def test_pointing_clicking_and_leaving(opened: Callable[..., Any]) -> None:
    page = opened(page_of(network(("layer1.0", "layer2.0"))))
    first = shown(page)
    stage = page.locator("#stage").bounding_box()

    def at(across: float, down: float) -> tuple[float, float]:
        return stage["x"] + across * stage["width"], stage["y"] + down * stage["height"]

    page.mouse.move(*at(0.25, 0.75))
    over = shown(page)
    assert over["place"] == pytest.approx([first["frame"], 17.5, 4.5], abs=0.1)  # of 24 x 20
    page.mouse.move(5, 5)
    assert shown(page)["place"] == first["place"]
    page.mouse.click(*at(0.75, 0.25))
    page.mouse.move(5, 5)
    kept = shown(page)
    assert kept["place"] == pytest.approx([first["frame"], 5.5, 14.5], abs=0.1)
    assert len(page.query_selector_all("#lines > g")) == 20
    assert len(page.query_selector_all("#lines > circle")) == 1  # the query
    # another frame, in the strip
    small = page.locator("#strip canvas").nth(1).bounding_box()
    page.mouse.click(small["x"] + small["width"] / 2, small["y"] + small["height"] / 2)
    page.mouse.move(5, 5)
    moved = shown(page)
    assert moved["place"] == pytest.approx([1, 11.5, 9.5], abs=0.3)
    assert moved["frame"] == 1
    page.select_option("#block", "0")
    assert shown(page)["block"] == 0
    assert len(shown(page)["weights"]) == 6 * 6 * 5  # 12 x 10 cells, pooled


def test_scrubbing_playing_and_what_is_drawn(opened: Callable[..., Any]) -> None:
    page = opened(page_of(network(), seconds=[i / 10 for i in range(6)]))
    place = shown(page)["place"]
    page.fill("#frame", "4")
    assert shown(page)["frame"] == 4
    assert page.inner_text("#time") == "0.40 s"
    assert shown(page)["place"] == place  # looking at another frame asks about the same place
    page.click("#play")
    page.wait_for_function("() => state.frame !== 4")
    page.click("#play")
    page.click("#heat")
    settled(page)
    assert page.query_selector_all("#lines > g") == []
    page.click("#column")
    assert "receives" in shown(page)["words"][2]
    assert page.get_attribute("#column", "aria-checked") == "true"
    page.click("#both")
    page.fill("#top", "3")
    settled(page)
    assert len(page.query_selector_all("#lines > g")) == 3
    assert page.inner_text("#figures").startswith("top-3 hold")
    heat = page.evaluate(
        """(() => { const c = $("stage"); return Array.from(
        c.getContext("2d").getImageData(0, 0, c.width, c.height).data); })()"""
    )
    assert np.ptp(heat) > 0


def test_keys_do_what_they_say(opened: Callable[..., Any]) -> None:
    page = opened(page_of(network(("layer1.0", "layer2.0"))))
    page.evaluate("change({ at: [2, 8, 8], frame: 2 })")
    page.focus("#stage")
    for key, place in {
        "ArrowRight": [2, 8, 12],  # cells of layer2.0 are four pixels apart
        "ArrowDown": [2, 12, 12],
        "ArrowLeft": [2, 12, 8],
        "ArrowUp": [2, 8, 8],
        ".": [3, 8, 8],
        ",": [2, 8, 8],
    }.items():
        page.keyboard.press(key)
        assert shown(page)["place"] == place, key
    page.keyboard.press("b")
    assert shown(page)["block"] == 0
    page.keyboard.press("c")
    assert "receives" in shown(page)["words"][2]
    page.keyboard.press("+")
    assert shown(page)["words"][0].startswith("top-21 ")
    page.keyboard.press("h")
    settled(page)
    assert page.query_selector_all("#lines > g") == []
    page.focus("#frame")
    page.keyboard.press("ArrowRight")  # belongs to the slider now
    assert shown(page)["frame"] == 3
    assert shown(page)["place"] == [2, 8, 8]


def test_on_a_phone_it_fits_and_a_tap_asks(opened: Callable[..., Any]) -> None:
    page = opened(page_of(network()), width=390, touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator("#stage").bounding_box()
    assert box["width"] > 340
    page.touchscreen.tap(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    assert shown(page)["place"][1:] == pytest.approx([5.5, 4.5], abs=0.1)


def test_what_there_is_to_warn_of_is_said(opened: Callable[..., Any]) -> None:
    page = opened(page_of(network(zero_init=None)))
    assert "untrained: its output is still exactly its input" in page.inner_text("#notes")
    page = opened(page_of(network(pairwise="concatenation"), top=3))
    page.wait_for_selector("#notes p")
    assert re.search(r"same top-3, .* \(here \d+ of \d+\)", page.inner_text("#notes"))


def test_names_are_text(opened: Callable[..., Any], tmp_path: Path) -> None:
    """Files and classes come from strangers."""
    model, bad = network(), "</script><img src=x onerror=alert(1)>&amp;"
    set_card(model, dataclasses.replace(card_of(model), classes=(bad,) * 4, frames=6))
    path = tmp_path / "<b>&amp;'{{script}}.mp4"
    write_video(path, frames_of(), 10)
    page = opened(explorer_page(model, path))
    assert page.inner_text("h1") == f"What c2d_tiny looks at in {path.name}"
    assert page.title() == page.inner_text("h1")
    assert bad in page.inner_text("#said")
    assert page.query_selector_all("h1 *, #said img") == []


def test_an_image_network_of_torchvision(opened: Callable[..., Any]) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.resnet18().eval()
    insert(model, "layer2.1", zero_init="none")
    frames = frames_of(1, 64, 96)
    image = frames[0].permute(2, 0, 1) / 255
    page = opened(compose(model, image, frames, title="an image"))
    found = shown(page)
    (look,) = attend(model, image, [found["place"][1:]])
    assert np.abs(np.array(found["weights"]) - look.weights.flatten().numpy()).sum() < 2 * ALIKE
    assert not page.is_visible("#scrub")
    assert page.inner_text("#said") == ""


def test_the_clip_is_that_of_the_time(tmp_path: Path) -> None:
    model = network()
    set_card(model, dataclasses.replace(card_of(model), frames=4, stride=1, clips=1))
    write_video(tmp_path / "film.mp4", frames_of(40), 10)
    text = explorer_page(model, tmp_path / "film.mp4", seconds=3.0)
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text)[0])
    assert min(data["seconds"]) <= 3.0 <= max(data["seconds"])
    assert len(data["frames"]) == 4
    assert sum(score for _, score in data["scores"]) <= 1


def test_what_cannot_be_shown() -> None:
    frames = frames_of()
    plain = create_model("c2d_tiny", 4)
    with pytest.raises(UserError, match="no non-local block"):
        compose(plain, clip_of(plain, frames), frames)
    model = network()
    with pytest.raises(UserError, match="'layer9'"):
        compose(model, clip_of(model, frames), frames, blocks="layer9")
    with pytest.raises(ValueError, match="not those of the clip"):
        compose(model, clip_of(model, frames), frames[:3])
    with pytest.raises(ValueError, match="uint8"):
        compose(model, clip_of(model, frames), frames.float())
    large = frames_of(8, 160, 160)
    model = network(("layer1.0",), pairwise=own)
    with pytest.raises(UserError, match="pairs are too many to write out"):
        compose(model, clip_of(model, large), large)


def test_embeddings_alone_are_packed() -> None:
    """The page grows with the positions, not with their pairs."""
    sizes = []
    for side in (64, 128):
        frames, model = frames_of(4, side, side), network()
        text = compose(model, clip_of(model, frames), frames)
        (block,) = json.loads(re.findall(r'id="data">(.*?)</script>', text)[0])["blocks"]
        sizes.append(len(block["q"]) + len(block["k"]))
        assert len(scenes(model, clip_of(model, frames))[0]) == 1
    assert sizes[1] <= 4.01 * sizes[0]
