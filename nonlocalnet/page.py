"""The page that tells of a network where it is published, from its card and nothing else."""

from __future__ import annotations

import re

from torch import nn

from .card import Card, card_of
from .models import IMAGE_MODELS

# what the Hub calls the licences that it knows by the names that cards use
LICENCES = {
    name: name.lower()
    for name in (
        "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0",
        "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0",
    )
}  # fmt: skip


def page(model: nn.Module, repo_id: str) -> str:
    """The text of a repository's README.md, in Markdown."""
    card = card_of(model)
    name, blocks = card.architecture.get("name", ""), card.architecture.get("non_local", ())
    pairwise = card.architecture.get("pairwise", "embedded_gaussian")
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    where = f"{len(blocks)}, {pairwise}: {', '.join(blocks)}" if blocks else "none"
    network = [
        ("network", f"{name} of nonlocalnet, {parameters:.3f} M parameters"),
        ("non-local blocks", where),
        ("classes", _classes(card)),
    ]
    video = name not in IMAGE_MODELS
    rows = network + (_input(card) if video else [])
    table = "\n".join(f"| {head} | {_plain(text)} |" for head, text in rows)
    use = (
        'for video in predict(model, "video.mp4"):\n    print(video.labels, video.scores)'
        if video
        else "logits = model(images)  # (N, 1, 28, 28)"
    )
    names = "from_pretrained, predict" if video else "from_pretrained"
    return f"""# {repo_id.rpartition("/")[2]}

| | |
|---|---|
{table}

```python
from nonlocalnet import {names}

model = from_pretrained("{repo_id}")
{use}
```

The weights come from: {_plain(card.source) or "not stated"}.
Their licence: {_plain(card.licence) or "not stated"}.

`model.safetensors` holds the weights, all that is in this table, and the network's own answer to a
seeded clip, with which `from_pretrained` compares. `config.json` says the same for readers. No
accuracy is stated, since none comes with the weights.
"""


def _classes(card: Card) -> str:
    """Their number, and their names where these are few."""
    count, names = card.architecture.get("num_classes", len(card.classes)), card.classes
    if not names:
        return f"{count}, without names"
    return f"{count}: {', '.join(names)}" if len(names) <= 30 else f"{count}, named in config.json"


def _input(card: Card) -> list[tuple[str, str]]:
    dense = card.sampling == "dense"
    which = f"stride {card.stride}" if dense else "spread over the video"
    return [
        ("clip", f"{card.frames} frames, {which}, {card.test_crop} x {card.test_crop} pixels"),
        ("colours", f"RGB from 0 to 1, less {card.mean}, over {card.std}"),
        ("clips x crops", f"{card.clips} x {card.crops}, joined by {card.aggregate}"),
    ]


def _plain(text: str) -> str:
    """Text of others as it stands, on one line, none of it taken for Markdown or HTML."""
    if re.fullmatch(r"https?://[^\s<>|]+", text):
        return f"<{text}>"
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", " ".join(text.split()))
