"""How each published result is obtained: recipes by name, each with what it promises.

`nonlocalnet recipes` lists them, `nonlocalnet recipes NAME` says all of one, and
`nonlocalnet train DATA --recipe NAME` follows it.
"""

from .protocol import SUSTAINED, VIDEOS, Protocol
from .published import PROTOCOLS, RECIPES

__all__ = ["PROTOCOLS", "RECIPES", "SUSTAINED", "VIDEOS", "Protocol"]
