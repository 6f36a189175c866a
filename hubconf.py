"""Entry points of torch.hub, as in `torch.hub.load(REPOSITORY, "create_model", "i3d_resnet50")`.

create_model builds a network by its name, load reads a checkpoint of this machine, and pretrained
fetches a published model.
"""

from torch import nn

from nonlocalnet import create_model, load

dependencies = ["torch", "numpy", "safetensors"]
__all__ = ["create_model", "load", "pretrained"]


def pretrained(name: str, device: str = "cpu", num_classes: int | None = None) -> nn.Module:
    """A published model by its name, in eval mode with its card; `nonlocalnet weights` lists them.

    It is downloaded and converted once, then kept in $NONLOCALNET_HOME or the user's cache.
    num_classes: a new head of so many classes, untrained. Raises UserError if it cannot be had.
    """
    from nonlocalnet.weights.download import ready

    return load(ready(name), device, num_classes=num_classes)
