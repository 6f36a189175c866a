"""The paper's Figure 3 as a picture: arrows from a query to what it looks at, across frames."""

from .film import draw_film
from .sheet import compose, compose_blocks, draw, draw_blocks

__all__ = ["compose", "compose_blocks", "draw", "draw_blocks", "draw_film"]
