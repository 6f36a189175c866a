"""A checked data set in figures: one pass over the reports, a few bytes of each kept."""

from __future__ import annotations

from array import array
from collections import Counter

from .remarks import GRAVE, KINDS, Grave
from .reports import Checked, FileReport

SHOWN = 200  # files of each gravity that are named one by one


class Summary:
    """What the page and the terminal tell.

    kinds: how many files (or remarks on classes) there are of each kind of `KINDS`. shown: the
    first `SHOWN` reports of each gravity, the gravest first. seconds, rates, sides: of the usable
    files, their lengths, frames per second and shorter sides in pixels.
    """

    def __init__(self, checked: Checked) -> None:
        self.files = len(checked)
        self.usable = self.bytes = self.turned = self.variable = 0
        self.kinds: Counter[str] = Counter(remark.kind for remark in checked.remarks)
        self.codecs: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.seconds, self.rates, self.sides = array("f"), array("f"), array("f")
        self._by_grave: dict[Grave, list[FileReport]] = {grave: [] for grave in GRAVE}
        for report in checked:
            self._add(report)

    @property
    def shown(self) -> list[FileReport]:
        return [report for grave in GRAVE for report in self._by_grave[grave]]

    @property
    def more(self) -> int:
        """Files with remarks that are not among those shown."""
        return self._remarked - len(self.shown)

    def fails(self, level: Grave) -> bool:
        """Whether there is anything as grave as this, or graver."""
        counted = GRAVE[: GRAVE.index(level) + 1]
        return any(KINDS[kind].grave in counted for kind in self.kinds)

    _remarked = 0

    def _add(self, report: FileReport) -> None:
        found, info = report.found, report.found.info
        self.usable += report.usable
        self.bytes += found.bytes
        self.kinds.update({remark.kind for remark in report.remarks})
        if report.remarks:
            self._remarked += 1
            named = self._by_grave[min((r.grave for r in report.remarks), key=GRAVE.index)]
            if len(named) < SHOWN:
                named.append(report)
        if info is None or not report.usable:
            return
        self.codecs[f"{info.codec} in {info.container.split(',')[0]}"] += 1
        self.sizes[f"{info.width} × {info.height}"] += 1
        self.turned += bool(info.rotation)
        self.variable += info.variable_rate
        self.seconds.append(info.duration)
        self.rates.append(info.fps)
        self.sides.append(min(info.width, info.height))
