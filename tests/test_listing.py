"""Lists as data sets are published: each format from its literal text to a training clip."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import fsspec
import pytest
import torch
from PIL import Image
from torch import Tensor

from nonlocalnet import cli
from nonlocalnet.card import Card
from nonlocalnet.datasets import VideoDataset
from nonlocalnet.errors import UserError
from nonlocalnet.evaluate import match_classes
from nonlocalnet.exam import examine
from nonlocalnet.labels import LISTS, class_names, numbering, plain
from nonlocalnet.listings.counts import COPIES, TITLES, recognise
from nonlocalnet.listings.data import WORDS, Data
from nonlocalnet.listings.formats import FORMATS, detect
from nonlocalnet.listings.own import columns_of, write_csv
from nonlocalnet.listings.pictures import template_of
from nonlocalnet.listings.read import read_data, read_test_data
from nonlocalnet.protocols import RECIPES
from nonlocalnet.samples import Action, Sample, Split
from nonlocalnet.synthetic import CLASSES as REUNION
from nonlocalnet.synthetic import render_reunion
from nonlocalnet.train import train
from nonlocalnet.video import write_video

FPS = 4
SECONDS = 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, torch.zeros((SECONDS * FPS, 24, 32, 3), dtype=torch.uint8), FPS)
    return path


Fill = Callable[..., Path]


@pytest.fixture
def fill(clip: Path, tmp_path: Path) -> Fill:
    """Videos, folders of pictures ("a/img_{:05d}.jpg": n) and texts below one folder."""

    def make(
        videos: str = "",
        pictures: dict[str, int] | None = None,
        texts: dict[str, str] | None = None,
    ) -> Path:
        for name in videos.split():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(clip, tmp_path / name)
        for pattern, count in (pictures or {}).items():
            (tmp_path / pattern).parent.mkdir(parents=True, exist_ok=True)
            for i in range(1, count + 1):
                Image.new("RGB", (32, 24)).save(tmp_path / pattern.format(i))
        for name, text in (texts or {}).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        return tmp_path

    return make


@dataclass(frozen=True)
class Case:
    """A data set in small: what lies there, how it is named, and what must come of it."""

    texts: dict[str, str]
    data: str
    train: dict[str, int]
    val: dict[str, int]
    classes: tuple[str, ...]
    videos: str = ""
    pictures: dict[str, int] | None = None
    flags: tuple[tuple[str, object], ...] = ()


KINETICS = """label,youtube_id,time_start,time_end,split
testifying,---QUuC4vJs,84,94,train
"massaging person's head",-0Hv-HplTiQ,0,10,train
testifying,_1abcdefghi,5,15,validate
"""
FRAME_LIST = """original_vido_id video_id frame_id path labels
46GP8 0 0 46GP8/46GP8-000001.jpg ""
46GP8 0 1 46GP8/46GP8-000002.jpg "92"
46GP8 0 2 46GP8/46GP8-000003.jpg "92,147"
46GP8 0 3 46GP8/46GP8-000004.jpg "147"
N11GT 1 0 N11GT/N11GT-000001.jpg "3"
N11GT 1 1 N11GT/N11GT-000002.jpg "3"
"""
CHARADES = (
    "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
)
CASES = {
    "csv": Case(
        {
            "my.csv": "path,label,split\na/1.mp4,run,train\nb/2.mp4,jump high,val\n"
            "b/3.mp4,run,train\n"
        },
        "my.csv",
        {"a/1.mp4": 1, "b/3.mp4": 1},
        {"b/2.mp4": 0},
        ("jump high", "run"),
        "a/1.mp4 b/2.mp4 b/3.mp4",
    ),
    "jsonl": Case(
        {
            "my.jsonl": '{"path": "1.mp4", "label": "run", "split": "train"}\n'
            '{"path": "2.mp4", "label": "jump", "split": "val", "start": 1, "end": 2}\n'
        },
        "my.jsonl",
        {"1.mp4": 1},
        {"2.mp4": 0},
        ("jump", "run"),
        "1.mp4 2.mp4",
    ),
    "paths": Case(
        # the first, with a space in its name, is not there
        {"train.csv": "k/run/my 1.mp4 1\nk/jump/2.mp4 0\n", "val.csv": "k/jump/3.mp4 0\n"},
        "train.csv",
        {"k/jump/2.mp4": 0},
        {"k/jump/3.mp4": 0},
        ("jump", "run"),
        "k/jump/2.mp4 k/jump/3.mp4",
        flags=(("val", "val.csv"),),
    ),
    "frames": Case(
        {
            "train_videofolder.txt": "something/v1/img/78687 4 1\nsomething/v1/img/42326 3 0\n",
            "val_videofolder.txt": "something/v1/img/1 3 1\n",
            "category.txt": "Holding something\nTurning something\nWiping something\n",
        },
        "train_videofolder.txt",
        {"something/v1/img/78687/{:05d}.jpg": 1, "something/v1/img/42326/{:05d}.jpg": 0},
        {"something/v1/img/1/{:05d}.jpg": 1},
        ("Holding something", "Turning something", "Wiping something"),
        pictures={f"something/v1/img/{name}/{{:05d}}.jpg": 4 for name in ("78687", "42326", "1")},
        flags=(("val", "val_videofolder.txt"),),
    ),
    "kinetics": Case(
        {"annotations/k.csv": KINETICS},
        "annotations/k.csv",
        {"val/testifying/---QUuC4vJs_000084_000094.mp4": 1, "flat/-0Hv-HplTiQ.mkv": 0},
        {"val/testifying/_1abcdefghi_5_15.webm": 1},
        ("massaging person's head", "testifying"),
        "val/testifying/---QUuC4vJs_000084_000094.mp4 flat/-0Hv-HplTiQ.mkv"
        " val/testifying/_1abcdefghi_5_15.webm",
        flags=(("root", "."),),
    ),
    "kinetics-json": Case(
        {
            "k.json": '{"---QUuC4vJs": {"annotations": {"label": "testifying",'
            ' "segment": [84.0, 94.0]}, "duration": 10.0, "subset": "train", "url": "https://www.youtube.com"},'
            ' "--GkrdYZ9Tc": {"annotations": {"label": "washing feet", "segment": [0.0, 10.0]},'
            ' "duration": 10.0, "subset": "validate", "url": "https://www.youtube.com"}}'
        },
        "k.json",
        {"---QUuC4vJs_000084_000094.mp4": 0},
        {"--GkrdYZ9Tc.mp4": 1},
        ("testifying", "washing feet"),
        "---QUuC4vJs_000084_000094.mp4 --GkrdYZ9Tc.mp4",
    ),
    "something-json": Case(
        {
            "labels.json": '{"Holding something":"0","Turning something upside down":"1"}',
            "train.json": '[{"id":"78687","label":"holding potato","placeholders":["potato"],'
            '"template":"Holding [something]"}, {"id":"42326","label":"turning a cup upside down",'
            '"template":"Turning [something] upside down","placeholders":["a cup"]}]',
            "validation.json": '[{"id":"74225","label":"x","template":"Holding [something]",'
            '"placeholders":["x"]}]',
        },
        "train.json",
        {"20bn/78687.webm": 0, "20bn/42326.webm": 1},
        {"20bn/74225.webm": 0},
        ("Holding something", "Turning something upside down"),
        "20bn/78687.webm 20bn/42326.webm 20bn/74225.webm",
        flags=(("val", "validation.json"),),
    ),
    "something-csv": Case(
        {
            "jester-v1-labels.csv": "Swiping Left\nDoing other things\n",
            "jester-v1-train.csv": "34870;Swiping Left\n56557;Doing other things\n",
            "jester-v1-validation.csv": "9223;Swiping Left\n",
        },
        "jester-v1-train.csv",
        {"20bn-jester-v1/34870/{:05d}.jpg": 0, "20bn-jester-v1/56557/{:05d}.jpg": 1},
        {"20bn-jester-v1/9223/{:05d}.jpg": 0},
        ("Swiping Left", "Doing other things"),
        pictures={
            "20bn-jester-v1/34870/{:05d}.jpg": 5,
            "20bn-jester-v1/56557/{:05d}.jpg": 4,
            "20bn-jester-v1/9223/{:05d}.jpg": 3,
        },
        flags=(("val", "jester-v1-validation.csv"),),
    ),
    "charades": Case(
        {
            "train.csv": CHARADES
            + '46GP8,HR43,Kitchen,6,7,Yes,"A person, cooking.",food,"x;y",'
            + "c092 0.00 1.00;c147 0.50 2.60,24.83\nN11GT,0KZ7,Stairs,5,7,Yes,w,x,y,,18.33\n",
            "test.csv": CHARADES + "YSKX3,2Y8X,Stairs,6,7,Yes,w,x,y,c003 0.00 2.00,30.0\n",
        },
        "train.csv",
        {"46GP8.mp4": -1, "N11GT.mp4": -1},
        {"YSKX3.mp4": -1},
        tuple(f"class {i}" for i in range(157)),
        "46GP8.mp4 N11GT.mp4 YSKX3.mp4",
        flags=(("val", "test.csv"),),
    ),
    "charades-frames": Case(
        {"train.csv": FRAME_LIST, "val.csv": FRAME_LIST.replace("46GP8", "YSKX3")},
        "train.csv",
        {"46GP8/46GP8-{:06d}.jpg": -1, "N11GT/N11GT-{:06d}.jpg": -1},
        {"YSKX3/YSKX3-{:06d}.jpg": -1, "N11GT/N11GT-{:06d}.jpg": -1},
        tuple(f"class {i}" for i in range(157)),
        pictures={
            "46GP8/46GP8-{:06d}.jpg": 4,
            "N11GT/N11GT-{:06d}.jpg": 2,
            "YSKX3/YSKX3-{:06d}.jpg": 4,
        },
        flags=(("val", "val.csv"),),
    ),
    "ucf101": Case(
        {
            "ucf/classInd.txt": "1 Archery\r\n2 YoYo\r\n",
            "ucf/trainlist01.txt": "Archery/v_Archery_g08_c01.avi 1\r\n"
            "YoYo/v_YoYo_g08_c01.avi 2\r\n",
            "ucf/testlist01.txt": "YoYo/v_YoYo_g01_c01.avi\r\n",
            "ucf/trainlist02.txt": "YoYo/v_YoYo_g01_c01.avi 2\n",
            "ucf/testlist02.txt": "Archery/v_Archery_g08_c01.avi\n",
        },
        "ucf",
        {"UCF-101/Archery/v_Archery_g08_c01.avi": 0, "UCF-101/YoYo/v_YoYo_g08_c01.avi": 1},
        {"UCF-101/YoYo/v_YoYo_g01_c01.avi": 1},
        ("Archery", "YoYo"),
        "UCF-101/Archery/v_Archery_g08_c01.avi UCF-101/YoYo/v_YoYo_g08_c01.avi"
        " UCF-101/YoYo/v_YoYo_g01_c01.avi",
        flags=(("root", "UCF-101"),),
    ),
    "hmdb51": Case(
        {
            "splits/brush_hair_test_split1.txt": "April_09_0.avi 1 \nFaith_Rewarded_1.avi 2 \n",
            "splits/wave_test_split1.txt": "winKen_wave_1.avi 1 \nunused_wave_3.avi 0 \n",
            "splits/wave_test_split2.txt": "winKen_wave_1.avi 2 \n",
        },
        "splits",
        {"hmdb/brush_hair/April_09_0.avi": 0, "hmdb/wave/winKen_wave_1.avi": 1},
        {"hmdb/brush_hair/Faith_Rewarded_1.avi": 0},
        ("brush_hair", "wave"),
        "hmdb/brush_hair/April_09_0.avi hmdb/brush_hair/Faith_Rewarded_1.avi"
        " hmdb/wave/winKen_wave_1.avi hmdb/wave/unused_wave_3.avi",
        flags=(("root", "hmdb"),),
    ),
}


def data_of(case: Case, root: Path) -> Data:
    flags = {name: str(root / str(value)) for name, value in case.flags}
    return Data(str(root / case.data), **flags)  # type: ignore[arg-type]


def labels(samples: tuple[Sample, ...], root: Path) -> dict[str, int]:
    return {Path(s.path).relative_to(root).as_posix(): s.label for s in samples}


def test_every_format_has_a_case_and_words() -> None:
    assert set(CASES) == set(FORMATS)
    assert set(WORDS) == {"folders", *FORMATS}


@pytest.mark.parametrize("name", CASES)
def test_a_list_becomes_samples_and_clips(name: str, fill: Fill) -> None:
    case = CASES[name]
    root = fill(case.videos, case.pictures, case.texts)
    data = data_of(case, root)
    assert detect(data.path) == name
    split = read_data(data)
    assert split.classes == case.classes
    assert labels(split.train, root) == case.train
    assert labels(split.val, root) == case.val
    assert split.several == name.startswith("charades")
    assert Split.from_json(split.to_json()) == split
    card = Card(frames=2, stride=1, crop=16, jitter=(16, 16), classes=split.classes)
    for sample in (*split.train, *split.val):
        item = VideoDataset([sample], card)[0, 0]
        assert isinstance(item, tuple), item
        assert item[0].shape == (3, 2, 16, 16)
        assert isinstance(item[1], Tensor) == split.several
    # the same list with Windows' ends and a byte-order mark
    text = "\ufeff" + case.texts.get(case.data, "").replace("\r", "").replace("\n", "\r\n")
    if case.data in case.texts:
        (root / case.data).write_text(text, encoding="utf-8", newline="")
        assert read_data(data) == split
    tested = read_test_data(data)
    assert (tested.train, tested.val) == ((), split.val)
    assert read_data(replace(data, format=name)) == split


def test_a_list_of_ours_round_trips(fill: Fill) -> None:
    for name in ("csv", "jsonl", "frames", "charades", "charades-frames"):
        case = CASES[name]
        root = fill(case.videos, case.pictures, case.texts)
        split = read_data(data_of(case, root))
        samples = [("train", s) for s in split.train] + [("val", s) for s in split.val]
        columns = columns_of([s for _, s in samples], split.several)
        assert write_csv(root / "clean.csv", split.classes, samples, columns) == len(samples)
        again = read_data(root / "clean.csv")

        def named(s: Split) -> list[tuple[object, ...]]:
            def names(sample: Sample) -> list[tuple[str, float, float]]:
                actions = sample.actions or (Action(sample.label),) * (sample.label >= 0)
                return [(s.classes[a.label], a.start, a.end) for a in actions]

            parts = [(x.path, x.start, x.end, x.pictures) for x in (*s.train, *s.val)]
            return [(*part, names(x)) for part, x in zip(parts, (*s.train, *s.val), strict=True)]

        assert named(again) == named(split), name


def test_classes_that_end_in_numbers_are_no_times(tmp_path: Path) -> None:
    names = ("step 1 2", "step 2 1", "walk")
    actions = (Action(0), Action(1, 2.0, 3.0), Action(2), Action(1))
    video = Sample(str(tmp_path / "a.mp4"), -1, "a", actions=actions)
    (tmp_path / "a.mp4").touch()
    write_csv(tmp_path / "own.csv", names, [("val", video)], columns_of([video], True))
    (again,) = read_test_data(tmp_path / "own.csv").val
    assert again.actions == actions


@pytest.mark.parametrize("write", ["check-data", "prepare"])
def test_what_was_drawn_is_not_listed(write: str, clip: Path, tmp_path: Path) -> None:
    """A list of test videos stays whole, and `--seed` and `--val` go on to have a meaning."""
    (tmp_path / "v").mkdir()
    for i in range(6):
        shutil.copy(clip, tmp_path / "v" / f"{chr(97 + i) * 3}.mp4")
    lines = [f"{chr(97 + i) * 3}.mp4 {i % 2}\n" for i in range(6)]
    (tmp_path / "val.txt").write_text("".join(lines))
    data = [str(tmp_path / "val.txt"), "--root", str(tmp_path / "v"), "--workers", "1"]
    options = ["--fail-on", "unusable"] if write == "check-data" else []
    cli.main([write, *data, "-o", str(tmp_path / "out"), *options])
    written = tmp_path / "out" / ("clean.csv" if write == "check-data" else "data.csv")
    assert len(read_test_data(written).val) == 6
    assert len(read_data(Data(str(written), val=str(written))).train) == 6


def test_a_video_has_one_path_however_it_is_written(fill: Fill) -> None:
    root = fill("v/a.mp4 v/b.mp4", None, {"lists/list.txt": "../v/a.mp4 0\n./../v//b.mp4 1\n"})
    paths = [sample.path for sample in read_test_data(root / "lists/list.txt").val]
    assert paths == [f"{root}/v/a.mp4", f"{root}/v/b.mp4"]


def test_the_parts_of_ucf101_and_hmdb51(fill: Fill) -> None:
    case = CASES["ucf101"]
    root = fill(case.videos, None, case.texts)
    split = read_data(replace(data_of(case, root), part=2))
    assert [Path(s.path).name for s in split.val] == ["v_Archery_g08_c01.avi"]
    tested = read_test_data(Data(str(root / "ucf/testlist02.txt"), root=str(root)))
    assert tested.val == split.val
    fill(texts=CASES["hmdb51"].texts)
    with pytest.raises(UserError, match=r"splits has no \.\.\._test_split3\.txt"):
        read_data(Data(str(root / "splits"), part=3))


def test_whole_recordings_are_cut(fill: Fill, clip: Path) -> None:
    text = "label,youtube_id,time_start,time_end,split\nrun,aaa,0,1,train\njump,bbb,1,2,train\n"
    root = fill("aaa.mp4 bbb.mp4 bbb_000001_000002.mp4", None, {"k.csv": text})
    split = read_test_data(root / "k.csv")
    assert [(Path(s.path).name, s.start, s.end) for s in split.val] == [
        ("aaa.mp4", 0.0, 1.0),  # of 3 seconds
        ("bbb_000001_000002.mp4", 0.0, math.inf),
    ]
    assert "1 files named by YouTube id alone are whole recordings" in split.notes[1]
    text = "label,youtube_id,time_start,time_end,split\nrun,aaa,50,53,train\n"
    (root / "k.csv").write_text(text)
    assert (read_test_data(root / "k.csv").val[0].start, len(split.notes)) == (0.0, 2)


def test_actions_have_times(fill: Fill) -> None:
    for name, seen in (
        ("charades", (Action(92, 0.0, 1.0), Action(147, 0.5, 2.6))),
        ("charades-frames", (Action(92, 1 / 24, 2 / 24), Action(147, 2 / 24, 3 / 24))),
    ):
        case = CASES[name]
        root = fill(case.videos, case.pictures, case.texts)
        first = read_data(data_of(case, root)).train[0]
        assert first.actions == seen
    assert first.rate == 24.0


def test_classes_can_be_named(fill: Fill) -> None:
    case = CASES["paths"]
    root = fill(case.videos, None, case.texts | {"names.txt": "0 hop\n1 dash\n2 rest\n"})
    data = data_of(case, root)
    assert read_data(replace(data, classes=str(root / "names.txt"))).classes[:2] == ("hop", "dash")
    assert len(read_data(replace(data, classes="kinetics400")).classes) == 400
    for text, names in (
        ('{"\\"jump\\"": 0, "run": 1}', ("jump", "run")),
        ('{"0": "jump", "1": "run"}', ("jump", "run")),
        ('["jump", "run"]', ("jump", "run")),
        ("id,name\n0,jump\n1,run\n", ("jump", "run")),
        ("1 Jump\n2 Run\n", ("Jump", "Run")),
        (
            "c000 Holding some clothes\nc001 Putting, them\n",
            ("Holding some clothes", "Putting, them"),
        ),
    ):
        (root / "names.txt").write_text(text)
        assert read_data(replace(data, classes=str(root / "names.txt"))).classes == names
    (root / "names.txt").write_text("0 a\n2 b\n")
    with pytest.raises(UserError, match="numbered 0 to 2; expected all numbers"):
        read_data(replace(data, classes=str(root / "names.txt")))


def test_numbers_alone(fill: Fill) -> None:
    root = fill("1.mp4 2.mp4", None, {"list.txt": "1.mp4,2\n2.mp4,0\n"})
    split = read_test_data(root / "list.txt")
    assert split.classes == ("class 0", "class 1", "class 2")
    assert "numbers alone; --classes FILE names them" in split.notes[0]


def test_numbers_alone_stay_numbers_in_our_own_list(fill: Fill) -> None:
    """What check-data and prepare write of such a list is tested as the list itself."""
    lines = "".join(f"{i}.mp4 {i}\n" for i in range(12))
    root = fill(" ".join(f"{i}.mp4" for i in range(12)), None, {"list.txt": lines})
    first = read_test_data(root / "list.txt")
    card = Card(classes=tuple("abcdefghijkl"))
    for some in (first.val, first.val[3:]):
        pairs = [("val", sample) for sample in some]
        write_csv(root / "own.csv", first.classes, pairs, columns_of(some, False))
        again = read_test_data(root / "own.csv")
        assert again.classes == first.classes[12 - len(some) :]
        matched = match_classes(again.val, again.classes, card)
        assert [s.label for s in matched] == [int(Path(s.path).stem) for s in some]


ERRORS = {
    "a.mp4 0\nb.mp4\n": "line 2: it has 1 columns; expected 2: path and label",
    "a.mp4 0\n\nb.mp4 x\n": "line 3: the label is 'x'; expected a number from 0",
    "a.mp4 0\nb.mp4 -1\n": "line 2: label -1 is out of range: the classes are 0 to 0",
    "a.mp4 0\nb 12 1\n": "it has|the number of pictures",
    "a 12 0\nb.mp4 1\n": "line 2: it has 2 columns; expected 3: folder",
    "a 0 0\n": "line 1: the number of pictures is '0'",
    "path,label\na.mp4\n": r"line 2: it has 1 columns and the header 2 \(path, label\)",
    "path,label\n,run\n": "line 2: it has no path",
    "path,label\na.mp4,\n": "line 2: it has no label",
    "path,label,split\na.mp4,run,tests\n": "line 2: the split is 'tests'; expected train, val",
    "path,label,start,end\na.mp4,run,5,2\n": "line 2: it starts at 5 s and ends at 2 s",
    "path,label,start,end\na.mp4,run,x,2\n": "line 2: the start is 'x'; expected a number",
    "path,label\n": "lists no videos",
    "": "is empty; expected one video on each line",
    "hello world\n": "is no list known here: its first line is 'hello world'",
    "{1}\n": "is JSON of no kind known here",
    '{"path": "a.mp4", "label": "run"}\n{"path"\n': "line 2: it is no JSON",
    '[{"id": "1", "label": "x"}]': "list of test videos, whose labels were not released",
    '[{"id": 1}': "line 1: this is not Something-Something's JSON",
    "youtube_id,time_start,time_end,split\nabc,1,2,test\n": "line 2: it has no label",
    "label,youtube_id,time_start,time_end,split\nrun,abc,x,2,train\n": "line 2: the start is 'x'",
    "label,youtube_id,time_start,time_end,split\nrun,abc,9,2,train\n": "line 2: the segment starts",
    "path,labels\na.mp4,run 5 2\n": "line 2: it starts at 5 s and ends at 2 s",
    "id,actions\nabc,x 1 2\n": "line 2: the action is 'x 1 2'; expected c092 11.90 21.20",
    "1;Swiping\n2 Swiping\n": "line 2: expected id;class name, found '2 Swiping'",
    "original_vido_id video_id frame_id path labels\na 0 0 a/a-000001.jpg\n": "line 2: it has 4",
    'original_vido_id video_id frame_id path labels\na 0 0 a/a-000001.jpg ""\n': "has a label",
}


@pytest.mark.parametrize("text", ERRORS)
def test_what_a_list_cannot_be(text: str, fill: Fill) -> None:
    root = fill("a.mp4 b.mp4", None, {"list.txt": text})
    with pytest.raises(UserError, match=ERRORS[text]) as raised:
        read_test_data(root / "list.txt")
    assert str(root / "list.txt") in str(raised.value)


def test_what_cannot_be_read(fill: Fill, tmp_path: Path) -> None:
    root = fill("a.mp4", None, {"one.txt": "a.mp4 0\n", "two.csv": "path,label\na.mp4,run\n"})
    one = str(root / "one.txt")
    with pytest.raises(
        UserError, match="one.txt is lines of path and label .* must be of one format"
    ):
        read_data(Data(one, val=str(root / "two.csv")))
    with pytest.raises(UserError, match="gone.csv: there is no such file"):
        read_data(root / "gone.csv")
    with pytest.raises(UserError, match="is no UTF-8 text"):
        read_data(root / "a.mp4")
    with pytest.raises(
        UserError, match="none of the 1 videos .* a.mp4 is not below .*/x; .* --root"
    ):
        read_data(Data(one, root=str(root / "x")))
    with pytest.raises(UserError, match="--val, --root has no meaning"):
        read_data(Data(str(tmp_path), val=one, root="."))
    with pytest.raises(UserError, match="'run' is none of the 27 classes"):
        read_data(Data(str(root / "two.csv"), classes="jester"))
    (root / "one.txt").write_text("a.mp4 5\n")
    (root / "names.txt").write_text("x\ny\n")
    with pytest.raises(UserError, match="label 5 is out of range: the classes are 0 to 1"):
        read_data(Data(one, classes=str(root / "names.txt")))
    with pytest.raises(UserError, match="every class has one recording only"):
        read_data(root / "two.csv")
    (root / "two.csv").write_text("path,label,split\na.mp4,run,train\na.mp4,run,val\n")
    with pytest.raises(UserError, match="says itself which videos are validated on; leave --val"):
        read_data(Data(str(root / "two.csv"), val=str(root / "two.csv")))


def test_what_is_left_out_is_counted(fill: Fill) -> None:
    lines = "".join(f"{i}.mp4 {i % 2}\n" for i in range(9))
    root = fill("0.mp4 1.mp4 4.mp4", None, {"list.txt": lines + "1.mp4 1\n0.mp4 1\n"})
    notes = read_test_data(root / "list.txt").notes
    assert notes[1:] == (
        f"left out because they are not there: 6 of 11 videos of {root}/list.txt (2.mp4, 3.mp4,"
        " 5.mp4 and 3 more); by class: class 0 3, class 1 3",
        "1 videos are listed twice with the same label; once is enough",
        f"warning: 1 videos have different labels: {root}/0.mp4 as class 0 and class 1",
    )


def test_a_recording_stays_on_one_side(fill: Fill) -> None:
    names = [f"v_{c}_g{g:02d}_c{i:02d}.mp4" for c in "AB" for g in range(5) for i in (1, 2)]
    text = "".join(f"{name} {int('_B_' in name)}\n" for name in names)
    split = read_data(fill(" ".join(names), None, {"list.txt": text}) / "list.txt")
    assert {s.source for s in split.train}.isdisjoint(s.source for s in split.val)
    assert (len(split.train), len(split.val)) == (16, 4)
    assert "cut from 10 recordings" in split.notes[-1]
    (Path(split.root) / "val.txt").write_text("v_A_g00_c02.mp4 0\n")
    (Path(split.root) / "train.txt").write_text("v_A_g00_c01.mp4 0\nv_B_g01_c01.mp4 1\n")
    data = Data(f"{split.root}/train.txt", val=f"{split.root}/val.txt")
    assert any("recordings that are also trained on" in note for note in read_data(data).notes)


def test_counts_are_compared(fill: Fill) -> None:
    classes = class_names("kinetics400")
    head = "label,youtube_id,time_start,time_end,split\n"
    rows = [f'"{name}",id{i:03d},0,3,validate\n' for i, name in enumerate(classes)]
    root = fill("id000_000000_000003.mp4", None, {"val.csv": head + "".join(rows)})
    split = read_test_data(root / "val.csv")
    assert split.classes == classes
    assert split.notes[2] == (
        f"Kinetics-400: 1 of the 400 validation videos of {root}/val.csv are here; published"
        " figures are on 19,906 (first release), 19,761 (video-nonlocal-net), 19,796 (MMAction2):"
        " a figure on another number of videos is not comparable to the last point"
    )
    assert set(COPIES) == set(TITLES)
    assert recognise("", classes) == "kinetics400"
    assert recognise("", classes[::-1]) == recognise("ucf101-1", ("a", "b")) == ""


def test_names_are_matched_as_codebases_write_them() -> None:
    for name in LISTS:
        classes = class_names(name)
        numbers = numbering(classes)
        assert [numbers[c] for c in classes] == list(range(len(classes)))
        if name == "kinetics400":
            assert all(numbers[plain(c)] == i for i, c in enumerate(classes))
    assert plain("Massaging_person's_head (x)") == "massaging persons head x"
    assert numbering(("Run", "run", "a_b")) == {"Run": 0, "run": 1, "a_b": 2, "a b": 2}


@pytest.mark.parametrize(
    ("names", "template"),
    [
        (
            "img_00001.jpg img_00002.jpg flow_x_00001.jpg flow_y_00001.jpg flow_x_00002.jpg",
            "img_{:05d}.jpg",
        ),
        ("00001.jpg 00002.jpg thumbs.db", "{:05d}.jpg"),
        ("000001.png", "{:06d}.png"),
        ("image_00001.JPG image_00010.JPG", "image_{:05d}.JPG"),
        ("1.jpg 2.jpg 10.jpg", "{:d}.jpg"),
        ("AO8RW-000001.jpg AO8RW-000002.jpg", "{name}-{:06d}.jpg"),
        ("a{b}_01.jpg", "a{{b}}_{:02d}.jpg"),
        ("notes.txt", None),
    ],
)
def test_how_pictures_are_named(names: str, template: str | None) -> None:
    assert template_of(names.split(), "AO8RW") == template


def test_pictures_named_in_two_ways(fill: Fill) -> None:
    text = {"list.txt": "a 2 0\nb 2 1\n"}
    root = fill("", {"a/img_{:05d}.jpg": 2, "b/{:05d}.jpg": 2, "a/x_{:03d}.jpg": 1}, text)
    data = Data(str(root / "list.txt"))
    with pytest.raises(
        UserError, match=r"named img_\{:05d\}\.jpg in .*a and .* say which by --temp"
    ):
        read_test_data(data)
    chosen = read_test_data(replace(data, template="{:05d}.jpg", rate=12.0)).val
    assert [(Path(s.path).name, s.pictures, s.rate) for s in chosen] == [
        ("{:05d}.jpg", 2, 12.0)
    ] * 2
    with pytest.raises(UserError, match=r"--template is the name of a picture .* not 'img\.jpg'"):
        read_test_data(replace(data, template="img.jpg"))
    with pytest.raises(UserError, match="two kinds of pictures"):
        template_of(["a_01.jpg", "b_01.jpg"], "x")


@pytest.fixture
def bucket(clip: Path) -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    for name in ("v/run/1.mp4", "v/jump/2.mp4"):
        memory.pipe(f"/bucket/{name}", clip.read_bytes())
    memory.pipe("/bucket/list.txt", b"run/1.mp4 1\njump/2.mp4 0\njump/3.mp4 0\n")
    memory.pipe("/bucket/v.csv", b"label,youtube_id,time_start,time_end\nrun,1,0,3\n")
    yield "memory://bucket"
    memory.rm("/bucket", recursive=True)


def test_lists_and_videos_may_be_elsewhere(bucket: str) -> None:
    split = read_test_data(Data(f"{bucket}/list.txt", root=f"{bucket}/v"))
    assert [(s.path, s.label) for s in split.val] == [
        (f"{bucket}/v/run/1.mp4", 1),
        (f"{bucket}/v/jump/2.mp4", 0),
    ]
    assert split.classes == ("jump", "run")
    assert "1 of 3 videos" in split.notes[1]
    by_name = read_test_data(f"{bucket}/v.csv")
    assert [s.path for s in by_name.val] == [f"{bucket}/v/run/1.mp4"]
    with pytest.raises(UserError, match="memory://bucket/no.txt: there is no such list"):
        read_test_data(f"{bucket}/no.txt")
    with pytest.raises(UserError, match="nowhere://a/b.txt"):
        read_test_data("nowhere://a/b.txt")


def test_what_a_web_server_lists_is_believed(fill: Fill) -> None:
    root = fill(texts={"list.txt": "run/1.mp4 0\n"})
    data = Data(str(root / "list.txt"), root="http://127.0.0.1:9/v")
    assert read_test_data(data).val[0].path == "http://127.0.0.1:9/v/run/1.mp4"


@pytest.mark.slow
def test_a_long_list_takes_seconds(tmp_path: Path) -> None:
    """300,000 lines, of whose videos one is there: seconds, not minutes."""
    lines = [f"class{i % 400}/vid{i:06d}_000001_000011.mp4 {i % 400}" for i in range(300_000)]
    (tmp_path / "class0").mkdir()
    (tmp_path / "class0/vid000000_000001_000011.mp4").touch()
    (tmp_path / "list.txt").write_text("\n".join(lines))
    start = time.process_time()
    split = read_test_data(tmp_path / "list.txt")
    assert time.process_time() - start < 30
    assert len(split.val) == 1
    assert "299,999 of 300,000 videos" in split.notes[1]


def test_train_on_a_list_resume_without_it_and_test(tmp_path: Path) -> None:
    root = render_reunion(tmp_path / "reunion", train=16, val=8)
    for side in ("train", "val"):
        videos = sorted((root / side).glob("*/*.mp4"))
        lines = [f"{p.relative_to(root)} {REUNION.index(p.parent.name)}\n" for p in videos]
        (tmp_path / f"{side}.csv").write_text("".join(lines))
    data = Data(str(tmp_path / "train.csv"), val=str(tmp_path / "val.csv"), root=str(root))
    recipe = replace(RECIPES["reunion"], epochs=2, accumulate_to=8, workers=0, device="cpu")
    out = tmp_path / "run"
    assert "16 videos to train on and 8" in " ".join(train(data, recipe, out, quiet=True).words)
    assert examine(out, replace(data, path=str(data.val), val=None), 1, 1).result.count == 8
    (tmp_path / "train.csv").unlink()
    root.rename(tmp_path / "moved")
    moved = replace(data, val=None, root=str(tmp_path / "moved"))
    words = train(moved, recipe, out, resume=True, quiet=True).words
    assert any("goes on with the 16 training and 8 validation videos" in word for word in words)
