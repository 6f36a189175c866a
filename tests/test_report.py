"""The report: what is on the page, that nothing runs or is fetched, and that figures are right."""

from __future__ import annotations

import errno
import io
import itertools
import json
import math
import os
import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nonlocalnet.errors import UserError
from nonlocalnet.metrics import Rate, Result, Rule, Scored, Skipped, outcome
from nonlocalnet.report import (
    AblationRow,
    AblationTable,
    Measured,
    Picture,
    Run,
    deviation,
    outcome_words,
    read_log,
    write_ablation,
    write_report,
)
from nonlocalnet.report.curves import curves
from nonlocalnet.report.dots import Dots, dots
from nonlocalnet.report.markup import element, escape, join
from nonlocalnet.report.plots import Series, bar, confusion, lines, reliability, spread, ticks
from nonlocalnet.report.sections import learning
from nonlocalnet.video import write_video

EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "a & b &amp; c", "żółw 🐢")
VOID = {"meta", "img", "br", "wbr"}


class Page(HTMLParser):
    """What a browser would see: elements with attributes, text, and whether all tags close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split()).replace("\u202f", " ")

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def made(
    classes: tuple[str, ...],
    videos: int = 40,
    paths: list[str] | None = None,
    seed: int = 0,
    skill: float = 1.0,
    rules: tuple[Rule, ...] = (Rule(1, 1), Rule(10, 1), Rule(10, 3)),
    groups: dict[str, tuple[str, ...]] | None = None,
) -> Result:
    """A result with random scores; the labels do not depend on the skill."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(videos):
        label = int(torch.randint(len(classes), (1,), generator=generator))
        logits = torch.randn(len(rules), len(classes), generator=generator)
        logits[:, label] += skill
        outcomes = tuple(outcome(row.softmax(-1), label) for row in logits)
        path = paths[i % len(paths)] if paths else f"/videos/{i}.mp4"
        rows.append(Scored(path, label, path, outcomes))
    skipped = (Skipped("/videos/<b>bad</b>.mp4", "it is an <html> page"),)
    obtained = {"Network": "i3d_tiny", "Parameters": "52,000", "Date": "today"}
    return Result(classes, rules, tuple(rows), skipped, groups or {}, obtained)


def page_of(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 4), "red").save(data, "PNG")
    return data.getvalue()


def test_strange_names_are_shown_and_nothing_runs(tmp_path: Path) -> None:
    result = made(EVIL, paths=["/videos/<i>x</i>.mp4", "/videos/bad\udcff.mp4"])
    run = Run("<u>run</u>", result, notes=["a <b>note</b>"])
    html, _ = write_report(
        tmp_path / "report.html",
        "<s>title</s>",
        [run],
        words=["some <em>words</em>"],
        pictures=[Picture(png(), "caption '><p>")],
    )
    page = page_of(html)
    assert {"script", "iframe", "object", "link", "i>", "s>", "u", "em"}.isdisjoint(
        tag for tag, _ in page.elements
    )
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "poster"):
                assert value is not None
                assert value.startswith("data:image/")
    for text in (*EVIL, "<s>title</s>", "some <em>words</em>", "a <b>note</b>", "caption '><p>"):
        assert text in page.text
    assert "it is an <html> page" in page.text
    assert "x</i>.mp4" in page.text
    assert r"bad\udcff.mp4" in page.text
    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    style = re.sub(r"/\*.*?\*/", "", html.read_text(encoding="utf-8").split("</style>")[0])
    assert "url(" not in style
    assert "@import" not in style


def test_figures_on_the_page(tmp_path: Path) -> None:
    result = made(tuple("abcdefgh"), videos=53)
    html, _ = write_report(tmp_path / "r.html", "T", [Run("r", result)])
    page = page_of(html)
    for i in range(3):
        low, high = result.accuracy(i).interval
        assert f"{100 * result.accuracy(i).value:.1f} %" in page.text
        assert f"{100 * low:.1f}–{100 * high:.1f} %" in page.text
        assert f"{100 * result.mean_class_accuracy(i):.1f} %" in page.text
        assert f"{100 * result.accuracy(i, k=5).value:.1f} %" in page.text
    for words in ("1 clip", "10 clips", "10 clips × 3 crops", "53", "i3d_tiny", "today"):
        assert words in page.text
    assert "1 video could not be used" in page.text


def test_json_holds_the_same(tmp_path: Path) -> None:
    result = made(("x", "y"))
    log = [{"epoch": 1, "loss": math.nan, "accuracy": 0.5}]
    _, path = write_report(tmp_path / "r.html", "T", [Run("r", result, log)], words=["w"])
    data = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == "r.json"
    assert (data["title"], data["words"]) == ("T", ["w"])
    assert Result.from_dict(data["runs"][0]["result"]) == result
    assert data["runs"][0]["log"] == [{"epoch": 1, "loss": None, "accuracy": 0.5}]


def test_comparison(tmp_path: Path) -> None:
    classes = ("different_left", "different_right", "same_left", "same_right")
    groups = {"same?": ("d", "d", "s", "s"), "direction?": ("l", "r", "l", "r")}
    rules = (Rule(1, 1),)
    runs = [
        Run(
            name,
            made(classes, 80, skill=skill, rules=rules, groups=groups),
            [{"epoch": e, "accuracy": e / 9 * skill / 4, "loss": 1.0} for e in range(5)],
        )
        for name, skill in (("C2D", 0.0), ("C2D + <non-local>", 2.0), ("I3D", 4.0))
    ]
    html, path = write_report(
        tmp_path / "r.html", "demo", runs, pictures=[Picture(png(), "second looks at first")]
    )
    page = page_of(html)
    for run in runs:
        assert run.name in page.text
        for rate in (run.result.accuracy(), *run.result.group_accuracy().values()):
            assert f"{100 * rate.value:.1f} %" in page.text
    assert page.text.index("same?") < page.text.index("direction?")
    assert "always the most frequent" in page.text
    assert f"{100 * runs[0].result.guess('same?').value:.1f} %" in page.text
    # both common plots and each run's own two, three curves in a common one
    assert html.read_text(encoding="utf-8").count("<polyline") == 2 * 3 + 3 * 2
    assert [run["name"] for run in json.loads(path.read_text())["runs"]] == [r.name for r in runs]


@pytest.mark.parametrize("count", [2, 5, 6, 25, 26, 30, 31, 40, 41, 400])
def test_any_number_of_classes(tmp_path: Path, count: int) -> None:
    result = made(tuple(f"kind {i}" for i in range(count)), videos=60)
    html, _ = write_report(tmp_path / "r.html", "T", [Run("r", result)], worst=0)
    page = page_of(html)
    matrix = sum("confusion" in (a.get("class") or "") for _, a in page.elements)
    assert matrix == (1 if count <= 40 else 0)
    for i in range(count):
        assert f"kind {i}" in page.texts  # in the full table at least
    right, answer, times, total = result.confused_pairs()[0]
    if count > 6:
        assert f"{right} {answer} {times} of {total}" in page.text


def test_frames_of_the_worst(tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    frames = torch.zeros(12, 32, 48, 3, dtype=torch.uint8)
    frames[6:, ..., 0] = 255  # black, then red
    write_video(video, frames, fps=12)
    gone = str(tmp_path / "gone.mp4")
    result = made(("x", "y"), videos=12, paths=[str(video), gone], skill=-1.0)
    html, _ = write_report(tmp_path / "r.html", "T", [Run("r", result)], worst=4)
    page = page_of(html)
    worst = result.worst(4)
    shown = sum(v.path == str(video) for v in worst)
    assert 0 < shown < 4
    sources = [a["src"] for tag, a in page.elements if tag == "img"]
    assert len(sources) == 6 * shown
    prefix = "data:image/jpeg;base64,"
    images = []
    for source in sources[:6]:
        assert source is not None
        assert source.startswith(prefix)
        images.append(Image.open(io.BytesIO(b64decode(source[len(prefix) :]))))
    assert images[0].size == (48, 32)
    red = [np.asarray(image)[..., 0].mean() for image in images]
    assert max(red[:3]) < 60
    assert min(red[3:]) > 195
    assert page.text.count("its frames cannot be read any more") == 4 - shown


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = made(("x", "y"))
    first, _ = write_report(tmp_path / "r.html", "first", [Run("r", result)], worst=0)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    whole = Path.write_text

    def half(path: Path, text: str, **options: str) -> int:
        whole(path, text[: len(text) // 2], **options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(UserError, match=r"r\.json cannot be written: No space left"):
        write_report(first, "second", [Run("r", result)], worst=0)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_what_was_there_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    result = made(("x", "y"))
    old = tmp_path / "r.html"
    old.write_text("old")
    for name, told in (("r.html/inside.html", "cannot be written"), ("r.txt", "end in .html")):
        with pytest.raises(UserError, match=told):
            write_report(tmp_path / name, "T", [Run("r", result)], worst=0)
    (tmp_path / "r.json").mkdir()  # writing over a folder fails
    with pytest.raises(UserError, match="cannot be written"):
        write_report(old, "T", [Run("r", result)], worst=0)
    (tmp_path / "device.html").symlink_to("/dev/null")
    with pytest.raises(UserError, match=r"device\.html cannot be written: it is no regular file"):
        write_report(tmp_path / "device.html", "T", [Run("r", result)], worst=0)
    (tmp_path / "device.html").unlink()
    assert old.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.html", "r.json"]
    with pytest.raises(ValueError, match="at least one run"):
        write_report(old, "T", [])


# -- markup


def test_element_escapes() -> None:
    drawn = element("a", "x < y", element("b", 1), None, title='"q"', class_="c", aria_hidden=True)
    assert drawn == '<a title="&quot;q&quot;" class="c" aria-hidden>x &lt; y<b>1</b></a>'
    assert element("img", src="s", alt=None, hidden=False) == '<img src="s">'
    assert element("rect", x=1.0, y=0.126) == '<rect x="1" y="0.13"></rect>'
    assert join("<", element("br")) == "&lt;<br>"
    with pytest.raises(ValueError, match="finite"):
        element("rect", x=math.nan)


@given(st.text())
def test_escaped_text_comes_back(text: str) -> None:
    shown = "<p>" + escape(text.replace("\r", "")) + "</p>"
    assert "".join(Page(shown).texts) == text.replace("\r", "")


# -- plots


@settings(deadline=None)
@given(
    st.floats(-1e6, 1e6, allow_subnormal=False),
    st.floats(1e-6, 1e6, allow_subnormal=False),
    st.integers(2, 8),
)
def test_ticks(low: float, span: float, about: int) -> None:
    if abs(low) > 1e6 * span:
        return  # beyond what an axis can tell apart
    found = ticks(low, low + span, about)
    steps = np.diff(found)
    assert 2 <= len(found) <= about + 3
    assert found[0] <= low + 1e-6 * span
    assert found[-1] >= low + span * (1 - 1e-6)
    step = steps.mean()
    assert steps == pytest.approx(np.full(len(steps), step), rel=1e-3)
    assert min(abs(step / 10 ** math.floor(math.log10(step) + 1e-6) - m) for m in (1, 2, 5)) < 0.01


def test_ticks_of_one_value() -> None:
    assert ticks(0.0, 0.0, 4)[0] <= 0
    assert ticks(3.0, 3.0, 4)[-1] >= 3


@given(st.lists(st.floats(0, 200), min_size=1, max_size=8))
def test_spread(places: list[float]) -> None:
    moved = spread(places, 15, 0, 200)
    by_place = sorted(range(len(places)), key=lambda i: places[i])
    ordered = [moved[i] for i in by_place]
    assert all(b - a >= 15 - 1e-6 for a, b in itertools.pairwise(ordered))
    assert min(moved) >= -1e-6
    assert max(moved) <= 200 + 1e-6


def test_spread_leaves_what_fits() -> None:
    assert spread([100.0, 20.0, 60.0], 15, 0, 200) == [100.0, 20.0, 60.0]


def test_lines_draw_the_values() -> None:
    values = ((0.0, 0.25), (5.0, 0.5), (10.0, 1.0))
    svg = lines([Series("up", values)], "epoch", "accuracy", share=True)
    points = re.search(r'points="([^"]+)"', svg)
    assert points
    x, y = np.array([p.split(",") for p in points[1].split()], dtype=float).T
    grid = [
        float(v) for v in re.findall(r'y1="([\d.]+)" x2="[\d.]+" y2="[\d.]+" class="grid"', svg)
    ]
    zero, one = max(grid), min(grid)
    assert (zero - y) / (zero - one) == pytest.approx([0.25, 0.5, 1.0], abs=2e-3)
    assert (x - x[0]) / (x[2] - x[0]) == pytest.approx([0, 0.5, 1], abs=2e-3)
    page = Page(svg)
    for text in ("up", "epoch", "accuracy", "0 %", "100 %"):
        assert text in page.text


def test_lines_of_odd_logs() -> None:
    assert "nothing to draw" in lines([Series("a", ((0.0, math.nan),))], "x", "y")
    assert "nothing to draw" in lines([], "x", "y")
    assert lines([Series("a", ((3.0, 1.0),))], "x", "y").count("<circle") == 1
    gap = Series("a", ((0.0, 1.0), (1.0, math.inf), (2.0, 3.0)))
    assert len(re.findall(r"\d,\d", lines([gap], "x", "y"))) == 2
    long = Series("a", tuple((float(i), i * 0.5) for i in range(5000)))
    drawn = re.search(r'points="([^"]+)"', lines([long], "x", "y"))
    assert drawn
    assert len(drawn[1].split()) == 240


def test_names_of_lines_do_not_meet() -> None:
    same = tuple(Series(f"s{i}", ((0.0, 0.5), (1.0, 0.5)), i) for i in range(4))
    places = re.findall(r'<text x="[\d.]+" y="([\d.]+)" class="name"', lines(same, "x", "y"))
    assert np.diff(sorted(map(float, places))).min() >= 14.9


def test_bar_and_reliability() -> None:
    drawn = bar(Rate(3, 4), guess=0.25)
    assert "--v:75.00%" in drawn
    assert "left:25.00%" in drawn
    assert "–" in bar(Rate(0, 0))  # nothing counted is a dash, not zero
    calibration = made(tuple("abc"), 200).calibration()
    assert reliability(calibration).count("<circle") == len(calibration.bins)


def test_confusion_cells() -> None:
    table = np.array([[3, 1], [0, 0]])
    page = Page(confusion(table, ("a", "b")))
    cells = [a for tag, a in page.elements if tag == "td" and "style" in a]
    assert [(c["class"], c["style"]) for c in cells] == [
        ("right most", "--s:75.0%"),
        ("wrong", "--s:25.0%"),
    ]
    assert [t for t in page.texts if t.isdigit()] == ["3", "1", "4", "0"]


# -- curves


def test_curves_of_a_step_log() -> None:
    log = [
        {"step": 10, "epoch": 0, "loss": 2.0, "lr": 0.1, "clips_per_second": 50},
        {"step": 20, "epoch": 0, "loss": 1.5, "accuracy": 0.4},
        {"step": 20, "epoch": 0, "validation loss": 1.6, "block layer2.0.non_local": 0.1},
        {"step": 30, "epoch": 1, "loss": 1.0, "accuracy": True},
    ]
    found = curves(log)
    assert list(found) == [
        "training loss",
        "validation loss",
        "training accuracy",
        "layer2.0 change made by each block",
    ]
    assert found["training loss"].points == ((10.0, 2.0), (20.0, 1.5), (30.0, 1.0))
    assert found["training loss"].over == "step"
    assert found["training accuracy"].points == ((20.0, 0.4),)
    assert [c.share for c in found.values()] == [False, False, True, False]
    words = "where one stays there, the reason is under"
    assert str(learning(log)).count(words) == 1
    assert words not in str(learning(log[:1]))


def test_curves_of_an_epoch_log() -> None:
    log = [{"epoch": e, "step": e * 7, "train_top1": e / 10, "val/top1": e / 20} for e in (1, 2)]
    found = curves(log)
    assert {c.over for c in found.values()} == {"epoch"}
    assert found["validation top-1 accuracy"].points == ((1.0, 0.05), (2.0, 0.1))
    # a resumed run wrote step 14 twice
    again = curves([*log, {"epoch": 2, "step": 14, "train_top1": 0.9}])
    assert again["training top-1 accuracy"].points == ((7.0, 0.1), (14.0, 0.9))
    assert curves([{"loss": 3.0}, {"loss": 2.0}])["training loss"].points == ((1, 3.0), (2, 2.0))


def test_read_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n[1]\n{"step": 2, "lo')
    assert read_log(path) == [{"step": 1, "loss": 2.0}]
    with pytest.raises(UserError, match=r"none\.jsonl cannot be read"):
        read_log(tmp_path / "none.jsonl")


def table_of(*rates: tuple[float, ...], can: bool | None = True) -> AblationTable:
    """One question, and a row per tuple of accuracies over seeds."""
    rows = tuple(
        AblationRow(f"row {i}", Measured("key", 1234, 5_600_000, 40, {"all": r, "why?": r},
                    {"why?": can}), 70.5)
        for i, r in enumerate(rates)
    )  # fmt: skip
    return AblationTable("Which <b>one</b>?", "Table 0", "It can.", rows)


def test_ablation_on_the_page(tmp_path: Path) -> None:
    table = table_of((0.5, 0.7, 0.9), (0.4, 0.5, 0.6))
    guess = {"all": 0.25, "why?": 0.5}
    html, figures = write_ablation(
        tmp_path / "a.html", "Title", [table], guess=guess, words=["w"], obtained={"Seeds": "3"}
    )
    page = page_of(html)
    for told in (
        "Which <b>one</b>? (Table 0)",
        "70.0 % ± 20.0",
        "50.0 to 90.0 %",
        "1,234",
        "5.6 M",
    ):
        assert told in page.text
    assert "1 of 2" not in page.text  # 0.7 lies below halfway from chance to always
    assert "0 of 2 times what theory says" in page.text
    assert page.count("script") == 0
    row = json.loads(figures.read_text(encoding="utf-8"))["tables"][0]["rows"][1]
    assert row["accuracy"]["why?"] == {
        "mean": pytest.approx(0.5),
        "deviation": pytest.approx(0.1),
        "seeds": [0.4, 0.5, 0.6],
    }


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    html, _ = write_ablation(
        tmp_path / "a.html", "Title", [table_of((0.8,))], guess={"all": 0.25, "why?": 0.5}
    )
    assert "±" not in page_of(html).text
    assert deviation((0.8,)) == 0.0


@pytest.mark.parametrize(
    ("can", "rate", "words"),
    [
        (True, 0.9, "1 of 1 times"),
        (True, 0.7, "0 of 1 times what theory says. Possible, but"),
        (False, 0.55, "1 of 1 times"),
        (False, 0.65, "0 of 1 times what theory says. More than it lets expect: row 0, why? 65.0"),
        (None, 0.9, "0 of 0 times"),
    ],
)
def test_what_came_out_beside_theory(can: bool | None, rate: float, words: str) -> None:
    assert words in outcome_words(table_of((rate, rate), can=can))


def test_dots_draw_the_values() -> None:
    page = Page(dots([Dots("mine", (0.25, 0.75)), Dots("yours", (0.5,))], "why?", guess=0.25))
    ticks_at = [
        float(a["x1"] or 0) for n, a in page.elements if n == "line" and a["class"] == "grid"
    ]
    centres = [float(a["cx"] or 0) for n, a in page.elements if n == "circle"]
    assert centres == pytest.approx([ticks_at[1], ticks_at[3], ticks_at[2]], abs=0.02)
    bars = [(float(a["x"] or 0), float(a["width"] or 0)) for n, a in page.elements if n == "rect"]
    quarter = ticks_at[1] - ticks_at[0]
    assert [x for x, _ in bars] == pytest.approx([ticks_at[1]] * 2, abs=0.02)  # from guessing
    assert [width for _, width in bars] == pytest.approx([quarter] * 2, abs=0.02)  # to the mean
