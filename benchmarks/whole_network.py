"""I3D-NL ResNet-50 on one clip of 8 x 224 x 224, CPU inference: ours against the plain form.

    python benchmarks/whole_network.py [seconds]

The plain form stands for PySlowFast's and PyTorchVideo's eager models: the same layers and
weights as nn.Conv3d, nn.MaxPool3d and nn.BatchNorm3d in the default layout, and their block.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from measure import keep, paired
from peers import SlowFastForm
from torch import Tensor, nn

from nonlocalnet import NonLocalBlock, create_model
from nonlocalnet.layers import BatchNorm3d, Conv3d, MaxPool3d
from nonlocalnet.resnet import ResNet3d
from nonlocalnet.surgery import blocks


class PlainNetwork(nn.Module):
    def __init__(self, model: ResNet3d) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _plain(model.conv1), _plain(model.bn1), nn.ReLU(), _plain(model.maxpool)
        )
        stages = []
        for name in model.stages:
            stages += [_plain(block) for block in model.get_submodule(name)]  # type: ignore[union-attr]
            if name == "layer1":
                stages.append(_plain(model.pool2))
        self.stages = nn.Sequential(*stages)
        self.fc = model.fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stages(self.stem(x)).mean((2, 3, 4)))


def _plain(module: nn.Module) -> nn.Module:
    if isinstance(module, Conv3d):
        conv = nn.Conv3d(
            module.in_channels, module.out_channels, module.kernel_size, module.stride,
            module.padding, bias=False,
        )  # fmt: skip
        conv.weight.data = module.weight.data.contiguous()
        return conv
    if isinstance(module, MaxPool3d):
        return nn.MaxPool3d(module.kernel_size, module.stride, module.padding)
    if isinstance(module, BatchNorm3d):
        norm = nn.BatchNorm3d(module.num_features, module.eps)
        norm.load_state_dict(module.state_dict())
        return norm
    block = module._modules.pop("non_local", None)
    module._forward_hooks.clear()
    for name, child in list(module.named_children()):
        setattr(module, name, _plain(child))
    return (
        nn.Sequential(module, SlowFastForm(block)) if isinstance(block, NonLocalBlock) else module
    )


def networks(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """Ours and the plain form with the same random weights, awake blocks included."""

    def build() -> ResNet3d:
        torch.manual_seed(seed)
        model = create_model("i3d_resnet50", 400, non_local=5, stem="slowfast")
        for module in model.modules():
            if isinstance(module, nn.BatchNorm3d | nn.BatchNorm1d):
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        return model.eval()

    ours = build()
    assert len(blocks(ours)) == 5
    return ours, PlainNetwork(build()).eval()


def run(seconds: float) -> dict[str, Any]:
    ours, plain = networks()
    x = torch.randn(1, 3, 8, 224, 224)
    with torch.inference_mode():
        a, b = ours(x), plain(x)
        error = float((a - b).abs().max() / b.std())
        result = paired(lambda: ours(x), lambda: plain(x), seconds)
    return {"what": "I3D-NL R50 8x224x224, inference, CPU", "error": error, **result}


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = run(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)
    keep("whole_network", result)
    measured = result["measured"]
    print(
        f"{result['what']}: ours {result['ours_s']:.2f} s, plain {result['theirs_s']:.2f} s,"
        f" {measured['median']:.2f}x (from {measured['min']:.2f} to {measured['max']:.2f});"
        f" largest difference {result['error']:.1e} of the logits' deviation"
    )
