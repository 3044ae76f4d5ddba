"""The training loop both recipes share: seeded, resumable, killed at no cost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

HISTORY = "history.jsonl"
Losses = dict[str, torch.Tensor]
StepFunction = Callable[[torch.Generator], Losses]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: warm-up, a plateau, and a linear decay to zero.

    With ``minutes`` the decay also follows the clock, from the start of the process,
    and training stops after so many: a machine that is shared has no speed to plan
    steps by. Such a run is not reproducible to the bit.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 200
    decay_share: float = 0.3
    weight_decay: float = 0.05
    ema_decay: float = 0.999
    checkpoint_every: int = 200
    seed: int = 0
    minutes: float | None = None

    def learning_rate_at(self, step: int, minutes: float = 0.0) -> float:
        """Return the learning rate of a step, so many minutes after the start."""
        decay_steps = max(1, round(self.decay_share * self.steps))
        rising = (step + 1) / max(1, self.warmup)
        falling = (self.steps - step) / decay_steps
        if self.minutes is not None:
            left = max(0.0, self.minutes - minutes)
            falling = min(falling, left / (self.decay_share * self.minutes))
        return self.learning_rate * min(1.0, rising, falling)


def write_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint under another name first, so that none is ever half there."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def average_into(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the exponential moving average of the weights towards the model's."""
    with torch.no_grad():
        for kept, current in zip(ema.parameters(), model.parameters(), strict=True):
            kept.lerp_(current, 1 - decay)


def restore(
    state: dict[str, Any],
    trained: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Load a checkpoint; the optimizer keeps its settings, which may be new.

    Raises
    ------
    ValueError
        When the weights do not fit.
    """
    try:
        trained.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
    except RuntimeError as error:
        raise ValueError(
            "The checkpoint does not fit the model; resume with the configuration that "
            f"the run was started with. {error}"
        ) from error
    averages = {"state": state["optimizer"]["state"]}
    optimizer.load_state_dict(optimizer.state_dict() | averages)


def train(
    losses_of: StepFunction,
    trained: nn.Module,
    ema: nn.Module,
    schedule: Schedule,
    out: Path,
    recipe: Mapping[str, Any],
) -> list[dict[str, float]]:
    """Run or resume a training run and return its log.

    Parameters
    ----------
    losses_of : callable
        Maps the step's random generator to named losses; ``"loss"`` is minimised.
        The generator is seeded by (seed, step), so a resumed run sees the same data.
    trained, ema : torch.nn.Module
        The module whose parameters are optimised, and the same with averaged weights.
    schedule : Schedule
    out : Path
        Folder of ``checkpoint.pt`` and ``log.jsonl``; a run found there is resumed.
    recipe : mapping
        What else the losses depend on, for ``history.jsonl``: it gains a line for each
        start, so that a run resumed with another recipe can tell.

    Returns
    -------
    list of dict
        One entry every ten steps: step, losses, samples per second.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, log_file = out / "checkpoint.pt", out / "log.jsonl"
    settings_file, history = out / "schedule.json", out / HISTORY
    optimizer = torch.optim.AdamW(
        trained.parameters(), betas=(0.9, 0.98), weight_decay=schedule.weight_decay
    )
    first, log = 0, []
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        restore(state, trained, ema, optimizer)
        first, log = state["step"], state["log"]

    with history.open("a") as lines:
        start = {"first_step": first, **asdict(schedule), **recipe}
        lines.write(json.dumps(start) + "\n")

    def save(step: int) -> None:
        state = {
            "model": trained.state_dict(),
            "ema": ema.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "log": log,
        }
        write_atomically(state, checkpoint)
        settings_file.write_text(json.dumps(asdict(schedule)))
        log_file.write_text("".join(json.dumps(entry) + "\n" for entry in log))

    sums: dict[str, float] = {}
    n_summed = 0
    began = started = time.perf_counter()
    progress = tqdm(range(first, schedule.steps), initial=first, total=schedule.steps)
    for step in progress:
        generator = torch.Generator().manual_seed(schedule.seed * 10_000_019 + step)
        minutes = (time.perf_counter() - began) / 60
        if schedule.minutes is not None and minutes >= schedule.minutes:
            save(step)
            break
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate_at(step, minutes)
        losses = losses_of(generator)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        average_into(ema, trained, min(schedule.ema_decay, (step + 1) / (step + 10)))
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value.detach().item()
        n_summed += 1
        if (step + 1) % 10 == 0:
            seconds = time.perf_counter() - started
            entry = {name: total / n_summed for name, total in sums.items()}
            n_rows = n_summed * schedule.batch_size
            entry |= {"step": step + 1, "rows/s": n_rows / seconds}
            log.append(entry)
            progress.set_postfix({k: f"{v:.3f}" for k, v in entry.items()})
            sums, n_summed, started = {}, 0, time.perf_counter()
        if (step + 1) % schedule.checkpoint_every == 0 or step + 1 == schedule.steps:
            save(step + 1)
    return log
