"""What a timestep of the training schedule does to latents, for both kinds of noise."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDPMScheduler

from sklearn_difffeat.checkpoints._parts import read_part
from sklearn_difffeat.checkpoints._source import Source

BETAS = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
    "rescale_betas_zero_snr",
)  # fmt: skip


class Noising:
    """The noise of a training schedule, at integer timesteps from 1.

    Parameters
    ----------
    config : dict
        The scheduler's configuration.
    flow : bool
        Whether noise and latents are interpolated linearly.
    """

    def __init__(self, config: dict[str, Any], *, flow: bool) -> None:
        self.config = config
        self.n_timesteps = int(config["num_train_timesteps"])
        self.ddpm = None
        if not flow:
            betas = {name: config[name] for name in BETAS if name in config}
            # Samplers round timesteps to their own grid, or leave the scaling of
            # latents to the caller; all of them were trained with DDPM's noise.
            self.ddpm = DDPMScheduler(**betas)

    @classmethod
    def describe(cls, source: Source, *, flow: bool) -> Noising:
        """Read the scheduler's configuration, and check that it has this kind of noise.

        Raises
        ------
        ValueError
            When the source lacks a scheduler, or has one of the other kind.
        """
        config = read_part(source, "scheduler")
        name = str(config.get("_class_name"))
        is_flow = name.startswith("FlowMatch") or bool(config.get("use_flow_sigmas"))
        fits = is_flow if flow else not is_flow and "beta_schedule" in config
        if not fits:
            kind = "flow-matching" if flow else "DDPM"
            raise ValueError(
                f"backbone={source.name!r} has the scheduler {name!r}, which is not of "
                f"the {kind} type that its model trains with; use the scheduler/ it "
                "was published with."
            )
        return cls(config, flow=flow)

    def add(
        self, latents: torch.Tensor, noise: torch.Tensor, timestep: float
    ) -> torch.Tensor:
        """Return the latents at a timestep, which may lie between two for a flow."""
        if self.ddpm is None:
            sigma = timestep / self.n_timesteps
            return (1 - sigma) * latents + sigma * noise
        steps = torch.full((len(latents),), timestep, device=latents.device)
        return self.ddpm.add_noise(latents, noise, steps)
