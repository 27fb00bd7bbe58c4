"""The loop: half of the batches clean and half out of real H.264; Muon moves the inner kernels and Adam the rest.

`python -m training.train POOL.npz OUT.pt --scale 2 --channels 16 --blocks 6 --steps 20000 --log LOG.tsv`

What is kept and judged is the moving average of the weights. `--start` begins with other weights; x4 begins with the
body of x2.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed, multiprocessing
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.network import LumaNet
from training.optimiser import Muon

VALIDATION = 32
EVERY = 500
WARMING_STEPS = 200
LEAST_RATE = 0.002  # of what was asked for
MEET_STEPS = 20  # after so many the workers take the mean of their weights


class Pool:
    """Tiles of small luma and of the same place large, (N, h, w) twice, and how often each is to be drawn."""

    def __init__(
        self, small: npt.NDArray[np.uint8], large: npt.NDArray[np.uint8], weight: npt.NDArray[np.float32]
    ) -> None:
        self.small, self.large = small, large
        self.scale = large.shape[1] // small.shape[1]
        self.reach = np.cumsum(weight, dtype=np.float64)

    def batch(self, draw: np.random.Generator, count: int, side: int) -> tuple[Tensor, Tensor]:
        """Draw crops, of two places each the sharper, mirrored and turned together; (N, 1, side, side) and large."""
        smalls, larges = [], []
        for tile in np.searchsorted(self.reach, draw.random(count) * self.reach[-1], "right"):
            small, large = self.small[tile], self.large[tile]
            corners = draw.integers(0, small.shape[0] - side + 1, (2, 2))
            y, x = max(corners, key=lambda at: unevenness(small[at[0] : at[0] + side, at[1] : at[1] + side]))
            smalls.append(small[y : y + side, x : x + side])
            y, x, wide = y * self.scale, x * self.scale, side * self.scale
            larges.append(large[y : y + wide, x : x + wide])
        turn = int(draw.integers(0, 8))
        both = [np.stack(planes)[:, None] for planes in (smalls, larges)]
        for bit, axis in ((1, 3), (2, 2)):
            if turn & bit:
                both = [np.flip(planes, axis) for planes in both]
        if turn & 4:
            both = [planes.swapaxes(2, 3) for planes in both]
        first, second = (torch.from_numpy(planes.astype(np.float32) / 255) for planes in both)
        return first, second


def unevenness(plane: npt.NDArray[np.uint8]) -> float:
    """Return the mean absolute step along both axes, in levels, of every second row and column."""
    coarse = plane[::2, ::2].astype(np.int16)
    return float(np.abs(np.diff(coarse, axis=0)).mean() + np.abs(np.diff(coarse, axis=1)).mean())


def load_pools(path: Path) -> tuple[list[Pool], list[tuple[Tensor, Tensor]]]:
    """Return the tiles to learn from and middles of those held out, each clean and coded."""
    pools, held = [], []
    with np.load(path) as stored:
        for kind in ("clean", "coded"):
            small, large, weight, out = (stored[f"{kind}_{part}"] for part in ("small", "large", "weight", "held"))
            order = np.random.default_rng(1).permutation(np.flatnonzero(out))[:VALIDATION]
            held.append((torch.from_numpy(small[order])[:, None], torch.from_numpy(large[order])[:, None]))
            pools.append(Pool(small, large, np.where(out, 0, weight)))
    return pools, held


def psnr(net: LumaNet, small: Tensor, large: Tensor, border: int) -> float:
    """Return the PSNR in dB over tiles of pictures that are not learned from, borders left out, as 8-bit levels."""
    cut = border * net.scale
    with torch.no_grad():
        out = torch.cat([net(part) for part in (small.float() / 255).split(16)])
    error = torch.round(out * 255).clamp(0, 255) - large.float()
    return -10 * math.log10(float((error[..., cut:-cut, cut:-cut] ** 2).mean()) / 255**2)


def meet(net: LumaNet, done: float) -> float:
    """Replace the weights by the mean of all workers' weights; return the mean of how far they are, from 0 to 1."""
    with torch.no_grad():
        parameters = list(net.parameters())
        flat = torch.cat([*(p.reshape(-1) for p in parameters), torch.tensor([done])])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for p, part in zip(parameters, flat[:-1].split([p.numel() for p in parameters]), strict=True):
            p.copy_(part.view(p.shape))
    return float(flat[-1])


def error_of(net: LumaNet, x: Tensor, y: Tensor, border: int, *, fast: bool) -> Tensor:
    """Return how far the network is off, where it is judged."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
        out = net(x.contiguous(memory_format=torch.channels_last)).float()
    cut = border * net.scale
    return out[..., cut:-cut, cut:-cut] - y[..., cut:-cut, cut:-cut]


def averaging(net: LumaNet, steps: int) -> AveragedModel:
    """Return a moving average of the weights that reaches `steps` back."""
    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / steps))


def learn(
    net: LumaNet, pools: list[Pool], report: Callable[..., None], arguments: argparse.Namespace, rank: int
) -> None:
    """Run the loop; tell `report` every 500 steps, and at the end."""
    draw = np.random.default_rng((arguments.seed, rank))
    inner = [block.wide.weight for block in net.blocks]
    others = [p for p in net.parameters() if all(p is not kernel for kernel in inner)]
    muon, adam = Muon(inner), torch.optim.Adam(others)
    average = averaging(net, arguments.averaged_steps)
    step, done, total, started = 0, 0.0, 0.0, time.monotonic()
    while done < arguments.until:
        step += 1
        rate = min(1.0, step / WARMING_STEPS, max(1 - done, LEAST_RATE))
        muon.rate = arguments.rate * rate
        adam.param_groups[0]["lr"] = arguments.adam_rate * rate
        coded = step % 2
        x, y = pools[coded].batch(draw, arguments.coded_batch if coded else arguments.batch, arguments.patch)
        error = error_of(net, x, y, arguments.border, fast=done <= 1 - arguments.precise_share)
        loss = (error.square() if done > 1 - arguments.squared_share else error.abs()).mean()
        net.zero_grad()
        (loss * (arguments.coded_weight if coded else 1)).backward()
        torch.nn.utils.clip_grad_norm_(others, arguments.clip)
        muon.step()
        adam.step()
        if step % MEET_STEPS == 0:
            minutes = (time.monotonic() - started) / 60
            done = meet(net, minutes / arguments.minutes if arguments.minutes else step / arguments.steps)
        average.update_parameters(net)
        total += error.detach().abs().mean().item() * 255
        if step % EVERY == 0 or done >= arguments.until:
            report(average.module, step, rate, total / (step % EVERY or EVERY))
            total = 0.0


class Log:
    """Writes a line of the log, and the averaged weights.

    Args:
        held: What is judged, clean and coded.
        arguments: Of the command; they are the first line.
    """

    def __init__(self, held: list[tuple[Tensor, Tensor]], arguments: argparse.Namespace) -> None:
        self._held = held
        self._arguments = arguments
        arguments.log.parent.mkdir(parents=True, exist_ok=True)
        columns = "step\tcpu_seconds\trate\tl1_levels\tclean_psnr_db\tcoded_psnr_db"
        arguments.log.write_text(f"# {vars(arguments)}\n{columns}\n", "utf-8")

    def __call__(self, net: LumaNet, step: int, rate: float, levels: float) -> None:
        """Judge the network and keep it."""
        given = self._arguments
        scores = "\t".join(f"{psnr(net, *part, given.border):.3f}" for part in self._held)
        with given.log.open("a", encoding="utf-8") as log:
            log.write(f"{step}\t{time.process_time():.0f}\t{rate:.3f}\t{levels:.4f}\t{scores}\n")
        state = {"channels": given.channels, "blocks": given.blocks, "scale": given.scale}
        torch.save({**state, "weights": net.state_dict()}, given.output)


def work(rank: int, arguments: argparse.Namespace, meeting: str) -> None:
    """Be one of the workers; the first one reports."""
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=arguments.workers)
    pools, held = load_pools(arguments.pool)
    net = LumaNet(arguments.channels, arguments.blocks, arguments.scale).to(memory_format=torch.channels_last)
    if arguments.start:
        old = torch.load(arguments.start)
        same = old["scale"] == arguments.scale
        kept = {k: v for k, v in old["weights"].items() if same or k.startswith(("head", "blocks"))}
        net.load_state_dict(kept, strict=same)
    learn(net, pools, Log(held, arguments) if rank == 0 else lambda *_: None, arguments, rank)
    distributed.destroy_process_group()


def main() -> None:
    """Train one net."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scale", type=int, required=True, choices=(2, 4))
    parser.add_argument("--channels", type=int, required=True)
    parser.add_argument("--blocks", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--until", type=float, default=1, help="stop at this share of the steps")
    parser.add_argument("--minutes", type=float, help="go by the clock instead, of a machine that others use, too")
    # Both sink steadily to nothing.
    parser.add_argument("--rate", type=float, default=1e-3, help="of the inner kernels")
    parser.add_argument("--adam-rate", type=float, default=3e-4, help="of everything else")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--batch", type=int, default=6, help="patches")
    parser.add_argument("--coded-batch", type=int, default=6, help="patches of a batch out of H.264")
    parser.add_argument("--patch", type=int, default=64, help="small pixels")
    parser.add_argument("--border", type=int, default=5, help="small pixels of a patch's edge that are not judged")
    parser.add_argument("--clip", type=float, default=0.05, help="longest gradient of what Adam moves")
    parser.add_argument("--coded-weight", type=float, default=1, help="what the error of a coded batch counts")
    parser.add_argument("--squared-share", type=float, default=0, help="share of the steps, at the end, on squares")
    parser.add_argument("--precise-share", type=float, default=0, help="share of the steps, at the end, in float32")
    parser.add_argument("--averaged-steps", type=int, default=300, help="what the kept average reaches back")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--start", type=Path, help="weights to begin with: all, or the body of another scale")
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(work, (arguments, f"file://{folder}/meeting"), arguments.workers)


if __name__ == "__main__":
    main()
