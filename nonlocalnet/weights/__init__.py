"""Checkpoints: one file per family of them, each mapping its names to ours."""

from .imagenet import load_imagenet
from .native import load, save

__all__ = ["load", "load_imagenet", "save"]
