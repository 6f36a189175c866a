"""How a non-local block should start on small data: identity or awake, N(0, 0.01^2) or MSRA.

    python benchmarks/block_start.py [epochs]

The demo's I3D network on reunion's clips in memory: 2000 for training, 500 for validation, AdamW
3e-3 one-cycle, batches of 32, one thread.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
import torch.nn.functional as F
from measure import keep
from torch import Tensor

from nonlocalnet import create_model
from nonlocalnet.card import card_of
from nonlocalnet.synthetic import Reunion, draw_clip
from nonlocalnet.transforms import normalize

BATCH, RATE = 32, 3e-3
STARTS: dict[str, dict[str, Any]] = {
    "identity, normal": {},
    "identity, msra": {"init": "msra"},
    "awake, normal": {"zero_init": "none"},
    "awake, msra": {"zero_init": "none", "init": "msra"},
    "awake, msra, dot product": {
        "zero_init": "none",
        "init": "msra",
        "pairwise": "dot_product",
    },
}


def clips(split: str, count: int) -> tuple[Tensor, Tensor]:
    drawn = [draw_clip(Reunion(), 0, split, i) for i in range(count)]
    frames = torch.stack([clip.frames.permute(3, 0, 1, 2) for clip in drawn])  # (N, 3, T, H, W)
    return frames, torch.tensor([clip.label for clip in drawn])


def learn(options: dict[str, Any], seed: int, epochs: int) -> dict[str, float]:
    torch.manual_seed(seed)
    (x, y), (held, truth) = clips("train", 2000), clips("val", 500)
    model = create_model("i3d_tiny", 4, non_local=1, dropout=0.0, **options)
    card = card_of(model)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-4)
    steps = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs * steps)
    start = time.process_time()
    for _ in range(epochs):
        for index in torch.randperm(len(x))[: steps * BATCH].view(-1, BATCH):
            loss = F.cross_entropy(model(normalize(x[index], card)), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.inference_mode():
        found = torch.cat([model.eval()(normalize(part, card)) for part in held.split(100)])
    said = found.argmax(1)
    rates = {"total": said == truth, "same": said // 2 == truth // 2, "way": said % 2 == truth % 2}
    seconds = time.process_time() - start
    return {"seconds": seconds, **{what: r.float().mean().item() for what, r in rates.items()}}


if __name__ == "__main__":
    torch.set_num_threads(1)
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    table = {}
    for name, options in STARTS.items():
        for seed in (0, 1):
            table[f"{name}, seed {seed}"] = rates = learn(options, seed, epochs)
            print(f"{name:26} seed {seed}", *(f"{k} {v:.3f}" for k, v in rates.items()), flush=True)
    keep("block_start", {"epochs": epochs, "starts": table})
