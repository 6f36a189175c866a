"""Non-local neural networks and temporal shift for PyTorch.

In reading order: the operation (`ops`), the block (`block`), the edits that put it into any
network (`surgery`), the networks (`models`), their checkpoints (`weights`) and their use.
"""

from importlib import import_module
from typing import Any

# ruff: noqa: I001  in reading order
from .ops import non_local
from .block import NonLocalBlock
from .denoise import NLMeans, nl_means
from .surgery import insert, inflate, shift, describe
from .waking import shares, why_asleep
from .models import create_model
from .streaming import Streaming

__version__ = "0.1.0"
__all__ = [
    "NLMeans",
    "NonLocalBlock",
    "Streaming",
    "create_model",
    "describe",
    "from_pretrained",
    "inflate",
    "insert",
    "load",
    "nl_means",
    "non_local",
    "predict",
    "push_to_hub",
    "save_pretrained",
    "shares",
    "shift",
    "why_asleep",
]

# These need more than torch (safetensors, a video decoder, the Hub's library), so they are imported
# when first used.
_LATER = {
    "load": "nonlocalnet.weights",
    "predict": "nonlocalnet.prediction",
    "from_pretrained": "nonlocalnet.hub",
    "save_pretrained": "nonlocalnet.hub",
    "push_to_hub": "nonlocalnet.hub",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'nonlocalnet' has no attribute {name!r}")
