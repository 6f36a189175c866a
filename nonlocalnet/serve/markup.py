"""An answer as HTML. Every word from outside, a class or a file's name, is text, never markup."""

from __future__ import annotations

import base64
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape

from ..look import percent
from ..palette import colour_of
from ..smoothing import NONE
from ..timeline import Segment
from .answer import TOP, Answer, Best
from .live import Watched, due
from .networks import Served

ROWS = 8  # classes of a timeline at most: those told for longest
TICKS = 5
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300)  # seconds between two of them


def verdict(answer: Answer) -> str:
    """The best class in large, and the table of scores with and without the blocks."""
    best = answer.best[0]
    size = f"{answer.info.width} x {answer.info.height}"
    facts = f"{answer.video} · {answer.info.duration:.1f} s · {size} · {answer.views}"
    return (
        f'<div class="nl-verdict"><span class="nl-class">{escape(best.name)}</span>'
        f'<span class="nl-share">{percent(best.score)}</span></div>'
        f'<p class="nl-faint">{escape(facts)}</p>{scores(answer.best)}{_change(answer.best)}'
    )


def scores(best: Sequence[Best]) -> str:
    """A row per class: its name, a bar and a figure; twice where there are two networks."""
    both = any(row.without is not None for row in best)
    heads = "<th>with its blocks</th><th>without</th>" if both else "<th>score</th>"
    rows = []
    for row in best:
        cells = _bar(row.score, "on")
        if row.without is not None:
            cells += _bar(row.without, "off")
        rows.append(f'<tr><th scope="row">{escape(row.name)}</th>{cells}</tr>')
    return (
        f'<table class="nl-scores{" nl-both" if both else ""}"><thead><tr><th>class</th>{heads}'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _bar(share: float, kind: str) -> str:
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        f'<td><span class="nl-cell"><span class="nl-track"><span class="nl-bar nl-{kind}"'
        f' style="width:{width:.2f}%"></span></span><span class="nl-figure">{percent(share)}</span>'
        "</span></td>"
    )


def _change(best: Sequence[Best]) -> str:
    """What the non-local blocks do to this answer, in a sentence."""
    if best[0].without is None:
        return '<p class="nl-faint">This network has no non-local block to switch off.</p>'
    other = max(best, key=lambda row: row.without or 0.0)
    share = percent(other.without or 0.0)
    if other.label == best[0].label:
        words = f"Without its non-local blocks it would say the same, with {share}."
    else:
        words = f"Without its non-local blocks it would say {other.name} ({share})."
    return f'<p class="nl-say">{escape(words)}</p>'


def when(answer: Answer) -> str:
    """The timeline: a row per class, a bar per segment, and times below."""
    if answer.timeline is None:
        return _missing(answer, "timeline")
    segments, classes = answer.timeline.segments, answer.timeline.classes
    rows: dict[int, list[Segment]] = defaultdict(list)
    for segment in segments:
        rows[segment.label].append(segment)
    longest = sorted(rows, key=lambda label: -sum(s.seconds for s in rows[label]))[:ROWS]
    end = max((s.end for s in segments), default=answer.info.duration)
    lines = "".join(
        f'<div class="nl-row"><span class="nl-label">{escape(_name(label, classes))}</span>'
        f'<span class="nl-lane">{_spans(rows[label], end, label)}</span></div>'
        for label in sorted(longest, key=lambda label: (label == NONE, label))
    )
    count = len(answer.told)
    words = [f"{count} answers" if count > 1 else "one answer: it is about as long as one clip"]
    words += map(str, answer.timeline.facts.get("told", ()))
    if len(rows) > ROWS:
        words.append(f"{len(rows) - ROWS} classes that were told for less time are not shown")
    return (
        f'<h3>What happens when</h3><div class="nl-time" data-seconds="{end:.3f}">{lines}'
        f'<div class="nl-row nl-axis"><span class="nl-label"></span>'
        f'<span class="nl-lane">{_ticks(end)}<i class="nl-playhead"></i></span></div></div>'
        f'<p class="nl-faint">{escape(" · ".join(words))}</p>'
    )


def _name(label: int, classes: Sequence[str]) -> str:
    return "none of these" if label == NONE else classes[label]


def _spans(segments: Iterable[Segment], end: float, label: int) -> str:
    red, green, blue = colour_of(label)
    found = []
    for s in segments:
        sure = "" if math.isnan(s.score) else f", {percent(s.score)}"
        title = f"{_time(s.start)} to {_time(s.end)}{sure}"
        left, width = 100 * s.start / end, 100 * s.seconds / end
        place = f"left:{left:.2f}%;width:{width:.2f}%"
        found.append(
            f'<span class="nl-span" style="{place};background:rgb({red} {green} {blue})"'
            f' title="{title}"></span>'
        )
    return "".join(found)


def _ticks(end: float) -> str:
    step = next((s for s in STEPS if end / s <= TICKS), STEPS[-1])
    ticks = [step * i for i in range(int(end / step) + 1)]
    return "".join(
        f'<span class="nl-tick" style="left:{100 * t / end:.2f}%">{_time(t)}</span>' for t in ticks
    )


def _time(seconds: float) -> str:
    """0.4 s, 12 s, 1:05."""
    if round(seconds) >= 60:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes}:{rest:02}"
    return f"{round(seconds, 1):g} s"


def where(answer: Answer) -> str:
    """The attention explorer, in a frame that can reach neither this page nor any other."""
    if not answer.page:
        return _missing(answer, "page")
    return (
        '<h3>What it looks at</h3><iframe class="nl-explorer" sandbox="allow-scripts"'
        f' title="What the network looks at" srcdoc="{escape(answer.page)}"></iframe>'
    )


def files(answer: Answer) -> str:
    """Links that save the pictures and the answer; the bytes are in the links."""
    saved = [(name, "image/png", data) for name, data in answer.pictures]
    saved.append(("answer.json", "application/json", answer.to_json().encode()))
    links = "".join(
        f'<a class="nl-save" download="{name}" href="data:{kind};base64,'
        f'{base64.b64encode(data).decode()}">{name}</a>'
        for name, kind, data in saved
    )
    why = dict(answer.missing).get("pictures")
    note = f'<p class="nl-faint">{escape(f"No pictures: {why}")}</p>' if why else ""
    return f'<h3>Save</h3><div class="nl-saves">{links}</div>{note}'


def _missing(answer: Answer, part: str) -> str:
    why = dict(answer.missing).get(part)
    title = {"timeline": "What happens when", "page": "What it looks at"}[part]
    if why is None:
        return waiting(title)
    return f'<h3>{title}</h3><p class="nl-faint">{escape(_capital(why))}.</p>'


def waiting(title: str) -> str:
    """The place of a part that is still being worked out."""
    return f'<h3>{escape(title)}</h3><div class="nl-wait" role="status">working it out …</div>'


def trouble(sentence: str) -> str:
    """What went wrong, in a sentence."""
    return f'<div class="nl-trouble" role="alert">{escape(_capital(sentence))}.</div>'


def _capital(sentence: str) -> str:
    return (sentence[:1].upper() + sentence[1:]).rstrip(".")


def seen(served: Served, watched: Watched) -> str:
    """What is told of a camera now, and how it goes."""
    told = watched.told
    if told is None:
        return '<p class="nl-faint">The first picture is on its way.</p>'
    order = told.scores.argsort(descending=True, stable=True)[:TOP].tolist()
    best = [Best(k, served.telling.classes[k], float(told.scores[k])) for k in order]
    name = "none of these" if told.best == NONE else served.telling.classes[told.best]
    p50, p95 = (1e3 * watched.latency.quantile(share) for share in (0.5, 0.95))
    facts = (
        ("latency", f"{p50:.0f} ms", f"95 % below {p95:.0f} ms"),
        ("answers", f"{watched.rate:.1f} a second", f"{watched.answers:,} so far"),
        ("dropped", f"{watched.dropped:,}", "pictures that came while it was busy"),
        ("pace", f"{watched.apart:.2f} s apart", f"made for {due(served):.2f} s"),
    )
    cells = "".join(
        f"<div><dt>{what}</dt><dd>{escape(value)}</dd>"
        f'<dd class="nl-faint">{escape(note)}</dd></div>'
        for what, value, note in facts
    )
    return (
        f'<div class="nl-verdict"><span class="nl-class">{escape(name)}</span>'
        f'<span class="nl-share">{percent(told.score)}</span></div>{scores(best)}'
        f'<dl class="nl-facts">{cells}</dl>'
    )


def about(served: Served) -> str:
    """What a network is, before it has said anything."""
    classes = served.telling.classes
    named = ", ".join(classes[:8]) + (" …" if len(classes) > 8 else "")
    kind = "frame by frame" if served.online else f"clips of {served.card.frames} frames"
    licence = f" · {served.card.licence}" if served.card.licence else ""
    words = f"{served.card.architecture.get('name', 'exported')} · {kind}{licence}"
    return (
        f'<p class="nl-say"><strong>It knows {len(classes)} classes:</strong> {escape(named)}</p>'
        f'<p class="nl-faint">{escape(words)}</p>'
    )
