"""Other codebases' files, narrow ones made here: what is recognised, refused, replaced and told."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as serialize
from torch import Tensor, nn

from nonlocalnet import create_model, load
from nonlocalnet.card import card_of, set_card
from nonlocalnet.errors import UserError
from nonlocalnet.scoring import score
from nonlocalnet.weights import alexhex7, caffe2, mmaction2, pyslowfast, pytorchvideo, save, tsm
from nonlocalnet.weights.family import Family
from nonlocalnet.weights.selftest import clips

Tensors = dict[str, Tensor]

# family, the network, its preset, whether the file fits others too
NARROW: dict[str, tuple[Family, str, int | str, str, bool]] = {
    "caffe2": (caffe2.FAMILY, "i3d_resnet50", 5, "caffe2-8x8", True),
    "caffe2 affine": (caffe2.FAMILY, "i3d_resnet50", 5, "caffe2-128x1-affine", True),
    "caffe2 R101": (caffe2.FAMILY, "c2d_resnet101", 5, "caffe2-32x2", True),
    "lfb": (caffe2.FAMILY, "i3d_resnet50", 5, "lfb", True),
    "pyslowfast": (pyslowfast.FAMILY, "i3d_resnet50", 5, "slowfast-dot", True),
    "pyslowfast by ptv": (pyslowfast.BY_PYTORCHVIDEO, "c2d_resnet50", 0, "slowfast", True),
    "pytorchvideo": (pytorchvideo.FAMILY, "c2d_resnet50", 0, "pytorchvideo", False),
    "mmaction": (mmaction2.FAMILY, "i3d_resnet50", 5, "mmaction-i3d-dot", True),
    "mmaction heavy": (mmaction2.FAMILY, "i3d_resnet50", 0, "mmaction-i3d-heavy", False),
    "mmaction slowonly": (mmaction2.FAMILY, "slowonly_resnet50", 5, "mmaction-slowonly", True),
    "tsn": (tsm.FAMILY, "c2d_resnet50", 0, "tsn", False),
    "mmaction mobilenet": (mmaction2.MOBILENET, "tsm_mobilenetv2", 0, "mmaction-tsm", False),
    "digits": (alexhex7.FAMILY, "digits", 2, "alexhex7-dot", True),
}


def narrow(name: str) -> tuple[nn.Module, Tensors, str]:
    """A network of ours with random weights, and its tensors under the family's names."""
    torch.manual_seed(0)
    family, kind, blocks, preset, _ = NARROW[name]
    width: Any = {} if kind in ("digits", "tsm_mobilenetv2") else {"width": 4}
    model = create_model(kind, 5, blocks, preset=preset, **width).eval()
    for tensor in model.state_dict().values():
        if tensor.dim() > 1:
            nn.init.kaiming_normal_(tensor)
        elif tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.0)
    theirs = {}
    shifted = {n[:-2] for n, m in model.named_modules() if hasattr(m, "temporal_shift")}
    for ours, tensor in model.state_dict().items():
        if name == "lfb" and "norm.running" in ours:  # kept by no file: zero, and one less eps
            tensor.copy_(torch.full_like(tensor, 1 - 1e-5 if ours.endswith("var") else 0))
            continue
        told = family.names.theirs(ours)
        if told and name == "mmaction mobilenet" and ".".join(ours.split(".")[:4]) in shifted:
            told = told.replace(".conv.0.", ".conv.0.net.")  # it wraps convolution and norm
        if told is None:  # a count that the family does not keep, or an affine norm's statistics
            assert ours.endswith("num_batches_tracked"), ours
        else:
            theirs[told] = tensor.clone()
    return model, theirs, preset


def written(tensors: Tensors, path: Path, **beside: Any) -> Path:
    torch.save({"state_dict": tensors, **beside}, path)
    return path


@pytest.mark.parametrize("name", NARROW)
def test_recognised_and_bit_equal(name: str, tmp_path: Path) -> None:
    model, tensors, preset = narrow(name)
    path = written(tensors, tmp_path / "x.pth")
    several = NARROW[name][4]
    if several:
        with pytest.raises(UserError, match=rf"fits several networks.*\n(?s:.*)  {preset} "):
            load(path)
    again = load(path, preset=preset if several else None)
    assert card_of(again).architecture["name"] == NARROW[name][1]
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in model.state_dict().items())
    assert not again.training
    card = card_of(again)
    assert card.source == f"x.pth, read as {preset}"
    made = dataclasses.replace(card, source="", architecture=card_of(model).architecture)
    assert made == card_of(model)


def test_a_network_of_images_refuses_videos(tmp_path: Path) -> None:
    _, tensors, preset = narrow("digits")
    model = load(written(tensors, tmp_path / "x"), preset=preset)
    with pytest.raises(UserError, match="digits is a network of images"):
        score(model, torch.zeros(1, 3, 8, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("field", "value"),
    [("frames", "x"), ("clips", -1), ("crop", True), ("sampling", "zzz"), ("mean", (1, 2))],
)
def test_a_card_with_impossible_values(field: str, value: object, tmp_path: Path) -> None:
    model = create_model("c2d_tiny", 2)
    told = json.loads(card_of(model).to_json()) | {field: value}
    metadata = {"format": "nonlocalnet-1", "card": json.dumps(told)}
    tensors = {name: t.contiguous() for name, t in model.state_dict().items()}
    (tmp_path / "x").write_bytes(serialize(tensors, metadata))
    with pytest.raises(UserError, match=f"a card's {field} is "):
        load(tmp_path / "x")


def test_weights_do_not_lie_in_the_file(tmp_path: Path) -> None:
    model, tensors, _ = narrow("tsn")
    path = written(tensors, tmp_path / "x.pth")
    again = load(path)
    path.write_bytes(b"\0" * path.stat().st_size)  # in place, as no careful program would
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in model.state_dict().items())


def test_a_table_of_what_differs(tmp_path: Path) -> None:
    _, tensors, preset = narrow("pyslowfast")
    lost = tensors.pop("s3.pathway0_nonlocal1.bn.running_mean")
    tensors["s4.pathway0_res2.branch2.b.weight"] = torch.zeros(8, 8, 1, 5, 5)
    tensors["s1.pathway1_stem.conv.weight"] = torch.zeros(2, 3, 5, 7, 7)
    with pytest.raises(UserError) as told:
        load(written(tensors, tmp_path / "x.pyth"), preset=preset)
    rows = [line.split() for line in str(told.value).splitlines()[1:]]
    shape, missing, unexpected = rows
    assert shape[:3] == ["shape", "layer3.2.conv2.weight", "(s4.pathway0_res2.branch2.b.weight)"]
    assert missing[:3] == [
        "missing",
        "layer2.1.non_local.norm.running_mean",
        "(s3.pathway0_nonlocal1.bn.running_mean)",
    ]
    assert missing[3:] == [f"({lost.numel()},)"]
    assert unexpected[:2] == ["unexpected", "s1.pathway1_stem.conv.weight"]


def test_an_axis_too_many_is_no_other_shape(tmp_path: Path) -> None:
    model, tensors, preset = narrow("caffe2")
    tensors["pred_w"] = tensors["pred_w"][..., None, None, None]
    again = load(written(tensors, tmp_path / "x"), preset=preset)
    assert torch.equal(again.state_dict()["fc.weight"], model.state_dict()["fc.weight"])
    tensors["pred_w"] = tensors["pred_w"].squeeze().mT[None]  # as many numbers, otherwise
    with pytest.raises(UserError, match="pred_w"):
        load(written(tensors, tmp_path / "x"), preset=preset)


def test_the_head_goes_only_when_told(tmp_path: Path) -> None:
    model, tensors, _ = narrow("mmaction mobilenet")
    path = written(tensors, tmp_path / "x.pth", meta={"dataset_meta": {"classes": list("abcde")}})
    assert card_of(load(path)).classes == tuple("abcde")
    assert card_of(load(path, num_classes=5)).classes == tuple("abcde")
    other = load(path, num_classes=3)
    assert card_of(other).classes == ()
    assert card_of(other).architecture["num_classes"] == 3
    state = model.state_dict()
    for name, tensor in other.state_dict().items():
        if name.startswith("classifier"):
            assert tensor.shape[0] == 3
            assert tensor.any() == name.endswith("weight")
        else:
            assert torch.equal(tensor, state[name])
    save(other, tmp_path / "ours.safetensors")
    assert card_of(load(tmp_path / "ours.safetensors", num_classes=4)).classes == ()


def test_a_file_without_a_head(tmp_path: Path) -> None:
    _, tensors, preset = narrow("lfb")
    bare = {k: t for k, t in tensors.items() if not k.startswith("pred")}
    path = written(bare, tmp_path / "x.pkl")
    with pytest.raises(UserError, match="has no head"):
        load(path, preset=preset)
    assert load(path, preset=preset, num_classes=7)(torch.zeros(1, 3, 8, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "beside", "preset"),
    [
        ("pyslowfast", {"cfg": "MODEL:\n  ARCH: i3d\nNONLOCAL:\n  INSTANTIATION: dot_product"}, 1),
        ("pyslowfast", {"cfg": "MODEL:\n  ARCH: i3d\nNONLOCAL:\n  INSTANTIATION: softmax"}, 0),
        ("pyslowfast by ptv", {"cfg": "MODEL:\n  ARCH: slow_c2d\n"}, 2),
        ("mmaction", {"meta": {"cfg": "non_local_cfg=dict(\n  mode='dot_product')"}}, 1),
        ("mmaction", {"meta": {"cfg": 'non_local_cfg=dict(mode="embedded_gaussian")'}}, 0),
    ],
)
def test_settings_in_the_file_decide(
    name: str, beside: dict[str, Any], preset: int, tmp_path: Path
) -> None:
    _, tensors, _ = narrow(name)
    told = card_of(load(written(tensors, tmp_path / "x", **beside))).architecture
    if preset == 2:
        assert told["stem"] == "image"
    else:
        assert (
            told.get("pairwise", "embedded_gaussian")
            == ("embedded_gaussian", "dot_product")[preset]
        )


# as yacs writes its settings, lists in lines, and as people do
SETTINGS = """\
DATA:
  MEAN:
  - 0.5
  - 0.5
  - 0.25
  NUM_FRAMES: 4
  SAMPLING_RATE: 16
  STD: [0.1, 0.2, 0.3]
DETECTION:
  ALIGNED: true
  ENABLE: false
MODEL:
  ARCH: i3d
NONLOCAL:
  GROUP:
  - - 1
  - - 1
  INSTANTIATION: softmax
  POOL:
  - - - 1
      - 2
      - 2
  - - - 1
      - 2
      - 2
RESNET:
  STRIDE_1X1: false
"""


def test_settings_that_change_the_network(tmp_path: Path) -> None:
    """What a PySlowFast file says beside its tensors is followed, or refused, and never ignored."""
    _, tensors, _ = narrow("pyslowfast")
    card = card_of(load(written(tensors, tmp_path / "x", cfg=SETTINGS)))
    assert (card.frames, card.stride) == (4, 16)
    assert (card.mean, card.std) == ((0.5, 0.5, 0.25), (0.1, 0.2, 0.3))
    strided = SETTINGS.replace("1X1: false", "1X1: true")
    model = load(written(tensors, tmp_path / "x", cfg=strided))
    assert model.get_submodule("layer2.0.conv1").stride == (1, 2, 2)
    for old, new, says in (
        ("  - - 1\n  INST", "  - - 4\n  INST", "NONLOCAL.GROUP"),
        ("- - - 1\n      - 2", "- - - 2\n      - 2", "NONLOCAL.POOL"),
        ("  ENABLE: false", "  ENABLE: true", "DETECTION"),
    ):
        assert old in SETTINGS
        with pytest.raises(UserError, match=says):
            load(written(tensors, tmp_path / "x", cfg=SETTINGS.replace(old, new)))


@pytest.mark.parametrize(
    ("name", "sample", "frames", "stride"),
    [
        ("mmaction slowonly", "clip_len=8, frame_interval=8, num_clips=10", 8, 8),
        ("mmaction mobilenet", "clip_len=1, frame_interval=1, num_clips=16", 16, 1),
        ("mmaction mobilenet", "", 8, 1),
        ("mmaction mobilenet", "DenseSampleFrames, clip_len=1, num_clips=8", 8, 8),
    ],
)
def test_clips_of_mmaction2(
    name: str, sample: str, frames: int, stride: int, tmp_path: Path
) -> None:
    _, tensors, preset = narrow(name)
    cfg = f"train_pipeline = [dict({sample}, type='SampleFrames')]\n"
    several = preset if NARROW[name][4] else None
    card = card_of(load(written(tensors, tmp_path / "x", meta={"cfg": cfg}), preset=several))
    assert (card.frames, card.stride) == (frames, stride)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("pyslowfast", "NONLOCAL:\n  GROUP: [[4]]\nRESNET:\n  STRIDE_1X1: true", "GROUP"),
        ("pyslowfast", "RESNET:\n  SPATIAL_DILATIONS: [[1], [1], [1], [2]]", "DILATIONS"),
        ("pyslowfast", "RESNET:\n  SPATIAL_STRIDES: [[1], [2], [2], [1]]", "STRIDES"),
        ("pyslowfast", "  STRIDE_1X1: true\n  GROUP: [[1], [1]]", {"stride_on": "1x1"}),
        ("mmaction", "dict(conv1_stride_t=1)", "conv1_stride_t=1"),
        ("mmaction", "dict(clip_len=length, shift_div=4)", "shift_div=4"),
        ("mmaction", "dict(clip_len=length, style='caffe')", {"stride_on": "1x1"}),
        ("mmaction", "dict(use_scale=True, mode='embedded_gaussian')", {"scale": "1/sqrt(d)"}),
        ("mmaction", "dict(use_scale=False, mode='embedded_gaussian')", {"scale": None}),
    ],
)  # fmt: skip
def test_settings_over_the_preset(
    name: str, settings: str, says: str | dict[str, Any], tmp_path: Path
) -> None:
    """What changes the logits and no tensor is done as the file says, or refused."""
    _, tensors, preset = narrow(name)
    beside = {"cfg": settings} if name == "pyslowfast" else {"meta": {"cfg": settings}}
    path = written(tensors, tmp_path / "x", **beside)
    given = None if "mode=" in settings else preset
    if isinstance(says, str):
        with pytest.raises(UserError, match=says):
            load(path, preset=given)
    else:
        assert says.items() <= card_of(load(path, preset=given)).architecture.items()


def test_pyslowfasts_scores_of_several_labels(tmp_path: Path) -> None:
    """Its Charades configurations: a sigmoid at each place, the best view of each class."""
    _, tensors, preset = narrow("pyslowfast")
    cfg = "DATA:\n  ENSEMBLE_METHOD: max\nMODEL:\n  HEAD_ACT: sigmoid\n"
    for settings, scores in (
        (cfg, ("sigmoid", "max", "7x7-sigmoid")),
        ("MODEL:\n  HEAD_ACT: softmax\n", ("softmax", "softmax", "7x7-softmax")),
    ):
        card = card_of(load(written(tensors, tmp_path / "x", cfg=settings), preset=preset))
        assert (card.activation, card.aggregate, card.architecture["head"]) == scores


@pytest.mark.parametrize("name", ["mmaction", "digits"])
def test_blocks_without_pooling_show_in_their_names(name: str, tmp_path: Path) -> None:
    _, tensors, preset = narrow(name)
    bare = {n.replace(".g.0.", ".g.").replace(".phi.0.", ".phi."): t for n, t in tensors.items()}
    assert bare.keys() != tensors.keys()
    told = card_of(load(written(bare, tmp_path / "x"), preset=preset)).architecture
    assert told["subsample"] == "none"
    told = card_of(load(written(tensors, tmp_path / "x"), preset=preset)).architecture
    assert told["subsample"] == "after"
    some = {n if "1" in n else n.replace(".g.0.", ".g."): t for n, t in tensors.items()}
    some = {n.replace("layer2.1.non_local_block.g.0", "layer2.1.non_local_block.g"): t
            for n, t in some.items()}  # fmt: skip
    with pytest.raises(UserError, match="some of its blocks"):
        load(written(some, tmp_path / "x"), preset=preset)


@pytest.mark.parametrize("name", ["pyslowfast", "pytorchvideo", "mmaction", "tsn"])
def test_lost_statistics_are_missing(name: str, tmp_path: Path) -> None:
    """Only Caffe2's files have constants for norms; elsewhere, somebody saved parameters alone."""
    _, tensors, preset = narrow(name)
    bare = only(tensors, lambda n: "running" not in n)
    with pytest.raises(UserError, match=r"missing +bn1.running_mean"):
        load(written(bare, tmp_path / "x"), preset=preset)


def test_numbers_of_another_kind(tmp_path: Path) -> None:
    for made, dtype in ((torch.int8, "int8"), (torch.complex64, "complex64")):
        _, tensors, _ = narrow("tsn")
        name = "base_model.layer1.0.conv1.weight"
        tensors[name] = tensors[name].to(made)
        with pytest.raises(UserError, match=rf"{dtype} in layer1.0.conv1.weight"):
            load(written(tensors, tmp_path / "x"))


@pytest.mark.parametrize(
    "card",
    ["", "{", "[]", "null", '{"architecture": 5}', "[" * 100_000,
     '{"architecture": {"name": "i3d_tiny", "non_local": [5]}}',
     '{"architecture": {"name": "i3d_tiny", "width": -1}}',
     '{"architecture": {"name": "i3d_tiny", "width": 1000000000000000}}',
     '{"architecture": {"name": "i3d_tiny", "stem": 7}}',
     '{"architecture": {"name": "i3d_tiny", "temporal_groups": 5}}'],
    ids=lambda card: card[:60],
)  # fmt: skip
def test_damaged_cards(card: str, tmp_path: Path) -> None:
    notes = {"format": "nonlocalnet-1", "card": card}
    (tmp_path / "x").write_bytes(serialize({"fc.bias": torch.zeros(2)}, notes))
    with pytest.raises(UserError, match=r"damaged|cannot be built"):
        load(tmp_path / "x")


def test_a_card_whose_clips_do_not_fit(tmp_path: Path) -> None:
    model = create_model("c2d_resnet18", 2, stem="caffe2-32", width=4)
    set_card(model, dataclasses.replace(card_of(model), frames=1))
    with pytest.raises(UserError, match=r"does not take a clip of \(3, 1, 64, 64\)"):
        save(model, tmp_path / "x", prove=True)


@pytest.mark.parametrize("pairwise", ["gaussian", "concatenation"])
def test_functions_that_tensors_tell(pairwise: str, tmp_path: Path) -> None:
    model = create_model("i3d_resnet50", 5, 5, preset="mmaction-i3d", width=4, pairwise=pairwise)
    theirs = mmaction2.FAMILY.names.theirs
    tensors = {str(theirs(n)): t for n, t in model.state_dict().items()}
    told = card_of(load(written(tensors, tmp_path / "x"))).architecture
    assert (told["pairwise"], told["scale"]) == (pairwise, None)


def test_a_network_without_shifts_sees_every_frame(tmp_path: Path) -> None:
    """mit-han-lab's TSN: an image network, the logits of its frames averaged."""
    _, tensors, _ = narrow("tsn")
    model = load(written(tensors, tmp_path / "x.pth"))
    x = torch.randn(1, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        frames = torch.stack([model(x[:, :, t : t + 1]) for t in range(8)])
        torch.testing.assert_close(model(x), frames.mean(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arch", "kind", "stem"),
    [
        ("c2d", "softmax", "slowfast"),
        ("i3d", "dot_product", "slowfast"),
        ("2d", "softmax", "image"),
        ("c2d_nopool", "softmax", "image"),
        ("i3d_nopool", "dot_product", "image"),
        ("slow", "dot_product", "image"),
    ],
)
def test_every_architecture_of_pyslowfast(arch: str, kind: str, stem: str, tmp_path: Path) -> None:
    """Which of them pool after res2, and how they relate places; the clip that they name."""
    _, tensors, _ = narrow("pyslowfast")
    cfg = f"DATA:\n  NUM_FRAMES: 16\n  SAMPLING_RATE: 4\nMODEL:\n  ARCH: {arch}\n"
    cfg += f"NONLOCAL:\n  INSTANTIATION: {kind}\n"
    card = card_of(load(written(tensors, tmp_path / "x.pyth", cfg=cfg)))
    told = card.architecture
    assert (told["stem"], card.frames, card.stride) == (stem, 16, 4)
    dot = kind == "dot_product"
    assert told.get("pairwise", "embedded_gaussian") == (kind if dot else "embedded_gaussian")
    assert told["scale"] == (None if dot else "1/sqrt(d)")


def test_another_pattern_of_shifts_is_refused(tmp_path: Path) -> None:
    _, tensors, _ = narrow("tsn")
    for at in ("layer1.0", "layer3.2"):
        name = f"base_model.{at}.conv1.weight"
        tensors[name.replace("conv1.", "conv1.net.")] = tensors.pop(name)
    wrapped = {f"module.{name}": tensor for name, tensor in tensors.items()}
    with pytest.raises(UserError, match="shifted in 2 places, .* shifts 16: they differ in layer1"):
        load(written(wrapped, tmp_path / "x.pth"))


def only(tensors: Tensors, keep: Callable[[str], bool]) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if keep(name)}


def test_what_is_refused(tmp_path: Path) -> None:
    _, tensors, _ = narrow("caffe2")
    good = written(tensors, tmp_path / "good.pkl")
    half = tmp_path / "half.pkl"
    half.write_bytes(good.read_bytes()[:-1000])
    shallow = only(tensors, lambda name: "res4_5" not in name)
    strange = {f"encoder.{i}.weight": torch.zeros(2) for i in range(9)}
    image = create_model("c2d_resnet50", 5, width=4).state_dict()
    uneven = dict(tensors)
    for part in ("theta", "phi", "g"):
        uneven[f"nonlocal_conv3_1_{part}_w"] = torch.zeros(3, 32, 1, 1, 1)
    for file, options, says in (
        (
            good,
            {"preset": "caffe2-9x9"},
            r"no preset has that name\); what it can be:\n  caffe2-8x8",
        ),
        (good, {"preset": "tsm"}, "is no 'tsm'; what it can be"),
        (half, {}, "cut off"),
        (good, {"num_classes": 0}, "num_classes is at least 1"),
        (written(shallow, tmp_path / "a"), {}, r"stages of \(3, 4, 5, 3\) blocks is no size here"),
        (
            written(strange, tmp_path / "b"),
            {},
            "no family known here .* called encoder.0.weight",
        ),
        (written(image, tmp_path / "c"), {}, "looks like an image ResNet.*load_imagenet"),
        (written(uneven, tmp_path / "d"), {}, r"inner widths \[3, 16, 32\]"),
    ):
        with pytest.raises(UserError, match=says):
            load(file, **options)


def test_the_self_test(tmp_path: Path) -> None:
    model = create_model("i3d_tiny", 3, 1, zero_init="none").eval()
    path = tmp_path / "x.safetensors"
    save(model, path)
    with pytest.raises(UserError, match="carries no self-test"):
        load(path, verify=True)
    with pytest.raises(UserError, match="leave out preset"):
        load(path, preset="paper")
    save(model.train(), path, prove=True)
    assert model.training
    load(path, verify=True)
    with pytest.raises(UserError, match="new head"):
        load(path, verify=True, num_classes=4)
    # other weights under the same record
    damaged = load(path)
    with torch.no_grad():
        damaged.get_parameter("conv1.weight")[0].mul_(1.05)
    data = path.read_bytes()
    save(damaged, tmp_path / "y.safetensors", prove=True)
    start = int.from_bytes(data[:8], "little") + 8
    (tmp_path / "z").write_bytes(
        data[:start] + (tmp_path / "y.safetensors").read_bytes()[-len(data) + start :]
    )
    with pytest.raises(UserError, match="the self-test fails: .* the file is damaged"):
        load(tmp_path / "z", verify=True)
    with torch.no_grad():
        damaged.get_parameter("fc.weight")[0] = torch.nan
    with pytest.raises(UserError, match="no finite numbers"):
        save(damaged, path, prove=True)
    assert path.read_bytes() == data


def test_clips_of_the_self_test() -> None:
    x = clips(0, (2, 3, 4, 5, 6))
    assert torch.equal(x, clips(0, (2, 3, 4, 5, 6)))
    assert not torch.equal(x, clips(1, (2, 3, 4, 5, 6)))
    assert x.dtype == torch.float32
    assert float(x.abs().max()) <= 3
    levels = x.mean((3, 4)).flatten()
    assert len(set(levels.tolist())) == 2 * 3 * 4  # clips, channels and frames all differ


def test_a_card_keeps_where_it_comes_from(tmp_path: Path) -> None:
    model = create_model("c2d_tiny", 2)
    set_card(model, dataclasses.replace(card_of(model), source="there", licence="CC BY-NC 4.0"))
    save(model, tmp_path / "x.safetensors")
    card = card_of(load(tmp_path / "x.safetensors"))
    assert (card.source, card.licence) == ("there", "CC BY-NC 4.0")
