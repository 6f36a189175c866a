"""The table of published models: complete, consistent, and the command that shows it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from nonlocalnet import cli
from nonlocalnet.card import Card
from nonlocalnet.errors import UserError
from nonlocalnet.labels import LISTS
from nonlocalnet.presets import PRESETS
from nonlocalnet.weights.published import PUBLISHED, Published, find

ROWS = list(PUBLISHED.values())
HOSTS = ("dl.fbaipublicfiles.com", "download.openmmlab.com", "hanlab18.mit.edu")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_says_everything(row: Published) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", row.name)
    assert re.fullmatch(
        rf"https://({'|'.join(map(re.escape, HOSTS))})/\S+\.(pkl|pyth|pth|tar)", row.url
    )
    assert row.preset in PRESETS
    assert row.classes in (*LISTS, "")
    assert re.match(r"[\w-]+/[\w-]+ ", row.source)
    assert row.source.endswith((".md", ".py"))
    assert row.licence.startswith(("CC-BY-NC-4.0", "Apache-2.0", "MIT"))
    assert re.fullmatch(r"[0-9a-f]*", row.sha256)
    card = dataclasses.replace(Card(), **PRESETS[row.preset].card)
    dataclasses.replace(card, **row.card)  # a TypeError for a field that no card has
    # an accuracy without its views says nothing, nor do views without accuracy
    assert (row.top1 is None) == (row.views == "")
    assert row.top1 is not None or row.note
    assert row.top5 is None or (row.top1 is not None and row.top1 < row.top5 < 100)
    assert row.to_dict() == json.loads(json.dumps(row.to_dict()))


def test_names_and_addresses_are_different() -> None:
    assert all(name == row.name for name, row in PUBLISHED.items())
    assert len({row.url for row in ROWS}) == len(ROWS) == 68


def test_presets_without_a_published_model() -> None:
    left = set(PRESETS) - {row.preset for row in ROWS}
    ours = {"paper", "alexhex7", "alexhex7-dot"}
    assert left == ours | {"slowfast-dot", "slowfast-nopool-dot", "mmaction-slowonly-dot", "tsn"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_name_and_an_address_agree_with_the_card(row: Published) -> None:
    if "frames" not in row.card:
        assert row.input == "one by one"
        return
    frames, stride = row.card["frames"], row.card.get("stride")
    dense = re.search(r"-(\d+)x(\d+)(-|$)", row.name)
    assert (row.card["sampling"] == "dense") == bool(dense)
    if dense:
        assert (frames, stride) == (int(dense[1]), int(dense[2]))
        assert row.input == f"{frames}x{stride}"
    else:
        assert f"-{frames}f-" in row.name
        assert row.input == f"{frames} spread"
        assert re.search(rf"1x1x{frames}[-_]|segment{frames}_", row.url)
    if "crops of" in row.views and not row.name.startswith("mmaction-tsm"):
        words = f"{row.card['clips']} clips x {row.card['crops']} crops of {row.card['test_crop']}"
        assert row.views == words
    assert ("-nl" in row.name) == bool(
        re.search(r"_nonlocal_|_NLN_|-nl-|_nl\.|/r\d+_k400", row.url)
    )
    assert ("r101" in row.name) == bool(re.search(r"r(esnet)?101", row.url))


def test_hashes_are_those_in_the_names_of_files() -> None:
    hashed = [row for row in ROWS if row.sha256]
    assert len(hashed) == 30
    assert all(row.url.endswith(f"-{row.sha256}.pth") for row in hashed)
    assert len({row.sha256 for row in hashed}) == 30
    for row in ROWS:  # a hash that two files claim would refuse one of them
        assert bool(row.sha256) == (row.family == "MMAction2" and "df42dc84" not in row.url)


# copied by hand from the tables of the publishers named in `source`
@pytest.mark.parametrize(
    ("name", "file", "top1", "top5"),
    [
        ("caffe2-i3d-nl-32x2-r50", "i3d_nonlocal_32x2_IN_pretrain_400k.pkl", 74.9, 91.6),
        ("caffe2-i3d-nl-128x1-r50", "i3d_nonlocal_128x1_I3D_pretrain_400k.pkl", 76.5, 92.7),
        ("slowfast-i3d-nln-8x8-r50", "I3D_NLN_8x8_R50.pkl", 74.0, 91.1),
        ("pytorchvideo-c2d-8x8-r50", "C2D_8x8_R50.pyth", 71.46, 89.68),
        ("tsm-nl-8x8-dense-r50", "segment8_e100_dense_nl.pth", 75.6, None),
        ("mmaction-tsm-sthv2-16f-r50", "sthv2-rgb_20230317-ec6696ad.pth", 64.16, 88.61),
        ("mmaction-slowonly-nl-8x8-r50", "20220901-df42dc84.pth", 76.65, 92.47),
    ],
)
def test_some_figures(name: str, file: str, top1: float, top5: float | None) -> None:
    row = find(name)
    assert row.url.endswith(file)
    assert (row.top1, row.top5) == (top1, top5)


def test_folders_of_mmaction() -> None:
    base = "https://download.openmmlab.com/mmaction"
    new, scratch, old = (
        find(f"mmaction-{name}").url
        for name in ("c2d-8x8-r50", "slowonly-scratch-4x16-r50", "tsm-jester-8f-r50")
    )
    stem = "c2d_r50-in1k-pre_8xb32-8x8x1-100e_kinetics400-rgb"
    assert new == f"{base}/v1.0/recognition/c2d/{stem}/{stem}_20221027-3ca304fa.pth"
    # the one file that is not called as its folder
    assert scratch.split("/")[-2] == "slowonly_r50_8xb16-4x16x1-256e_kinetics400-rgb"
    assert scratch.endswith("/slowonly_r50_4x16x1_256e_8xb16_kinetics400-rgb_20220901-f6a40d08.pth")
    stem = "tsm_r50_1x1x8_50e_jester_rgb"
    assert old == f"{base}/recognition/tsm/{stem}/{stem}-c799267e.pth"


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match="'slowfast-i3d-nl-8x8'.* slowfast-i3d-nln-8x8-r50"):
        find("slowfast-i3d-nl-8x8")
    with pytest.raises(UserError, match="'!!!'; `nonlocalnet weights` lists them all"):
        find("!!!")


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.split()[:1] in [[n] for n in PUBLISHED]] == [
        *PUBLISHED
    ]
    line = next(line for line in lines if line.startswith("slowfast-ptv-c2d"))
    assert line.split(maxsplit=4)[1:] == ["8x8", "71.46", "89.68", "10 clips x 3 crops of 256"]
    assert lines[0] == "video-nonlocal-net, licence CC-BY-NC-4.0"
    assert " 72.0 " in lines[2]
    assert "MMAction2, licence Apache-2.0 (the code's)" in lines


def test_a_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights", "--family", "pytorchVIDEO", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in found] == [
        "pytorchvideo-c2d-8x8-r50",
        "pytorchvideo-i3d-8x8-r50",
    ]
    assert found[1] == find("pytorchvideo-i3d-8x8-r50").to_dict()
    assert cli.main(["weights", "--family", "keras"]) == 2
    assert "families are video-nonlocal-net," in capsys.readouterr().err


def test_an_unknown_model_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights", "i3d"]) == 1
    assert "no published model 'i3d'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["predict NAME x.mp4", "attend NAME x.mp4", "test NAME x", "show NAME"]
)
def test_commands_take_a_name(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a run is expected, the name is looked up: here it is kept, but no checkpoint."""
    name = "tsm-8f-r50"
    monkeypatch.setenv("NONLOCALNET_HOME", str(tmp_path))
    (tmp_path / f"{name}.safetensors").write_bytes(b"none")
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.replace("NAME", name).split()) == 1
    assert str(tmp_path / f"{name}.safetensors") in capsys.readouterr().err
    (tmp_path / name).mkdir()  # a folder of that name comes first
    assert cli.main(words.replace("NAME", name).split()) == 1
    assert f"{name}: a run folder without model.safetensors" in capsys.readouterr().err


def test_a_name_of_a_network_needs_no_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "tsm-8f-r50", "--num-classes", "7"]) == 2
    assert "leave out the flags that build one" in capsys.readouterr().err
    assert cli.main(["show", "tsm-9f-r50"]) == 2
    assert "`nonlocalnet weights` lists the published ones" in capsys.readouterr().err


PAGE = Path(__file__).parents[1] / "docs" / "weights.md"


@pytest.mark.skipif(not PAGE.exists(), reason="an installed package has no docs")
def test_the_page_has_every_row() -> None:
    page = PAGE.read_text("utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| [")]
    figures = {
        f"[{row.name}]({row.url})": [
            row.input,
            *("–" if value is None else value for value in (row.top1, row.top5)),
            row.views or "–",
        ]
        for row in ROWS
    }
    found = {
        name: [input, *(value if value == "–" else float(value) for value in two), views]
        for name, input, *two, views in rows
    }
    assert found == figures
    assert len(rows) == len(ROWS)
