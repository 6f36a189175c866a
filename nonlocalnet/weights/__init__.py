"""Checkpoints: one file per family of them, each mapping its names to ours."""

from .blocks import load_block
from .imagenet import load_imagenet
from .loading import load
from .native import save

__all__ = ["load", "load_block", "load_imagenet", "save"]
