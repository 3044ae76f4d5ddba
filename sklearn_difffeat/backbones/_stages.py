"""The blocks of a text encoder that is not a known family, and how they run."""

from __future__ import annotations

from typing import Any

import torch

from sklearn_difffeat.backbones._info import BackboneInfo


def find_stages(body: Any, info: BackboneInfo) -> list[torch.nn.Module]:
    """Return what embeds the tokens, and the one list of as many modules as blocks.

    Raises
    ------
    ValueError
        When there is no such list, or several.
    """
    lists = {
        name: module
        for name, module in body.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == info.n_blocks
    }
    outer = [
        module
        for name, module in lists.items()
        if not any(name.startswith(f"{other}.") for other in lists)
    ]
    if len(outer) != 1:
        raise _unreadable(info)
    embed = getattr(body, "embeddings", body.get_input_embeddings())
    # ELECTRA's embeddings may be narrower than its blocks.
    return [getattr(body, "embeddings_project", embed), *outer[0]]


@torch.no_grad()
def hides_padding(backbone: Any) -> bool:
    """Check that each block runs once, in order; return whether padding is hidden.

    Two short passes of mask tokens show this.

    Raises
    ------
    ValueError
        When blocks do not run in order, or not on one row of states.
    """
    text, padding = backbone.mask_token_id, backbone.tokenizer.pad_token_id
    n_stages = len(backbone.stages)
    seen: list[tuple[int, Any]] = []
    hooks = [
        stage.register_forward_hook(
            lambda module, args, output, k=k: seen.append((k, output))
        )
        for k, stage in enumerate(backbone.stages)
    ]
    ends = []
    try:
        for ids in ([text] * 4, [text] * 4 + [padding] * 4):
            row = torch.tensor([ids], device=backbone.device)
            del seen[:]
            backbone.model(input_ids=row, attention_mask=(row != padding).long())
            states = [backbone.hidden_states(output) for _, output in seen]
            shapes = {tuple(state.shape) for state in states}
            in_turn = [k for k, _ in seen] == list(range(n_stages))
            if not in_turn or shapes != {(1, len(ids), backbone.info.width)}:
                raise _unreadable(backbone.info)
            ends.append(states[-1][:, :4].float())
    finally:
        for hook in hooks:
            hook.remove()
    alone, padded = ends
    return bool((alone - padded).norm() < 0.02 * alone.norm())


def _unreadable(info: BackboneInfo) -> ValueError:
    return ValueError(
        f"backbone={info.name!r} is a {info.family}, whose blocks do not run one after "
        "another on one row of states, so they cannot be read; use a model such as "
        "'FacebookAI/roberta-base'."
    )
