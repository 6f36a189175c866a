"""HTML from nested calls, with every plain string escaped.

Class names and file names come from strangers' disks. Here escaping is what happens when nobody
thinks of it: only text made by `element` counts as HTML, everything else is shown as written.
"""

from __future__ import annotations

import html
import math

VOID = frozenset({"br", "img", "meta", "wbr"})  # elements without an end tag


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Any value as text that shows literally; `Markup` is passed through.

    File names that are no valid UTF-8 carry lone surrogates; they are shown as backslash escapes,
    since no file could be written with them.
    """
    if isinstance(value, Markup):
        return value
    readable = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return Markup(html.escape(readable, quote=True))


def join(*parts: object) -> Markup:
    """The parts one after another; `None` is left out."""
    return Markup("".join(escape(part) for part in parts if part is not None))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element: `element("p", "a < b", class_="note")` -> `<p class="note">a &lt; b</p>`.

    A trailing underscore in an attribute's name is dropped and an inner one becomes a hyphen.
    `None` and `False` leave an attribute out, `True` writes it bare, floats are rounded to 1/100
    (pixels). Raises `ValueError` for a number that is not finite: it would draw nothing, silently.
    """
    start = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{start}>")
    return Markup(f"<{name}{start}>{join(*children)}</{name}>")


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    label = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {label}"
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"attribute {label} is {value}, not a finite number")
        value = f"{value:.2f}".rstrip("0").rstrip(".")
    return f' {label}="{escape(value)}"'
