"""The paper's Figure 3 as a picture: arrows from a query to what it looks at, across frames."""

from .sheet import compose, draw

__all__ = ["compose", "draw"]
