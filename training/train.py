"""The loop: L1 on luma, Adam with a cosine, half of the batches clean and half out of real H.264.

`python -m training.train POOL.npz OUT.pt --scale 2 --channels 16 --blocks 6 --steps 60000 --log LOG.tsv`

One thread, one seed: the same machine gives the same weights. `--start` begins with other weights; x4 begins with the
body of x2.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.network import LumaNet

BATCH = 16
BORDER = 4  # small pixels at a patch's edge that the zero padding spoils most; not judged
PRECISE_SHARE = 0.25  # of the steps, at the end, in float32; those before run in bfloat16, twice as fast
VALIDATION = 512
EVERY = 1000


def load_pools(path: Path) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Return the patches to learn from and those held out, each clean and coded, small and large."""
    pools, held = [], []
    with np.load(path) as stored:
        for kind in ("clean", "coded"):
            order = np.random.default_rng(1).permutation(len(stored[f"{kind}_small"]))
            both = [torch.from_numpy(stored[f"{kind}_{size}"][order])[:, None] for size in ("small", "large")]
            held.append([planes[:VALIDATION] for planes in both])
            pools.append([planes[VALIDATION:] for planes in both])
    return pools, held


def psnr(net: LumaNet, small: Tensor, large: Tensor) -> float:
    """Return the PSNR in dB over patches, borders left out, as 8-bit levels."""
    cut = BORDER * net.scale
    with torch.no_grad():
        out = torch.cat([net(part) for part in (small.float() / 255).split(64)])
    error = torch.round(out * 255).clamp(0, 255) - large.float()
    return -10 * math.log10(float((error[..., cut:-cut, cut:-cut] ** 2).mean()) / 255**2)


def turned(x: Tensor, y: Tensor, turn: int) -> tuple[Tensor, Tensor]:
    """Mirror and transpose both in one of eight ways."""
    for bit, axis in ((1, 3), (2, 2)):
        if turn & bit:
            x, y = x.flip(axis), y.flip(axis)
    return (x.transpose(2, 3), y.transpose(2, 3)) if turn & 4 else (x, y)


def learn(net: LumaNet, pools: list[list[Tensor]], held: list[list[Tensor]], arguments: argparse.Namespace) -> None:
    """Run the loop, writing a line of the log and the weights every thousand steps."""
    draw = np.random.default_rng(arguments.seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=arguments.rate)
    cut = arguments.border * arguments.scale
    with arguments.log.open("w") as log:
        log.write(f"# {vars(arguments)}; {sum(p.numel() for p in net.parameters())} weights while training\n")
        log.write("step\tcpu_seconds\tl1_levels\tclean_psnr_db\tcoded_psnr_db\n")
        total = 0.0
        for step in range(1, (arguments.until or arguments.steps) + 1):
            warm = min(1.0, step / 200)
            cosine = 0.5 * (1 + math.cos(math.pi * step / arguments.steps))
            optimiser.param_groups[0]["lr"] = arguments.rate * warm * max(cosine, 0.005)
            small, large = pools[step % 2]
            chosen = torch.from_numpy(draw.integers(0, len(small), BATCH))
            x, y = turned(small[chosen].float() / 255, large[chosen].float() / 255, int(draw.integers(0, 8)))
            fast = step <= (1 - arguments.precise_share) * arguments.steps
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
                out = net(x.contiguous(memory_format=torch.channels_last))
            judge = (
                functional.l1_loss if step <= (1 - arguments.squared_share) * arguments.steps else functional.mse_loss
            )
            inside = out.float()[..., cut:-cut, cut:-cut], y[..., cut:-cut, cut:-cut]
            loss = judge(*inside) * (arguments.coded_weight if step % 2 else 1)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), arguments.clip)
            optimiser.step()
            total += functional.l1_loss(*inside).item() * 255
            if step % EVERY == 0:
                scores = "\t".join(f"{psnr(net, *part):.3f}" for part in held)
                log.write(f"{step}\t{time.process_time():.0f}\t{total / EVERY:.4f}\t{scores}\n")
                log.flush()
                total = 0.0
                state = {"channels": arguments.channels, "blocks": arguments.blocks, "scale": arguments.scale}
                torch.save({**state, "weights": net.state_dict()}, arguments.output)


def main() -> None:
    """Train one net."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scale", type=int, required=True, choices=(2, 4))
    parser.add_argument("--channels", type=int, required=True)
    parser.add_argument("--blocks", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True, help=f"a multiple of {EVERY}")
    parser.add_argument("--until", type=int, help="stop after so many of the steps")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--clip", type=float, default=math.inf, help="longest gradient; wide nets need one")
    parser.add_argument("--border", type=int, default=BORDER, help="small pixels that are not judged")
    parser.add_argument("--coded-weight", type=float, default=1, help="what the error of a coded batch counts")
    parser.add_argument("--squared-share", type=float, default=0, help="share of the steps, at the end, on squares")
    parser.add_argument("--precise-share", type=float, default=PRECISE_SHARE, help="share of the steps in float32")
    parser.add_argument("--start", type=Path, help="weights to begin with: all, or the body of another scale")
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    pools, held = load_pools(arguments.pool)
    net = LumaNet(arguments.channels, arguments.blocks, arguments.scale).to(memory_format=torch.channels_last)
    if arguments.start:
        old = torch.load(arguments.start)
        same = old["scale"] == arguments.scale
        kept = {k: v for k, v in old["weights"].items() if same or k.startswith(("head", "blocks"))}
        net.load_state_dict(kept, strict=same)
    arguments.log.parent.mkdir(parents=True, exist_ok=True)
    learn(net, pools, held, arguments)


if __name__ == "__main__":
    main()
