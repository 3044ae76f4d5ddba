"""A small BD3-LM, by the names of ``kuleshov-group/bd3lm-owt-block_size16``.

As there: no ``post_init``, masked and unmasked text in one row unless it samples, and a
mask that is made for the longest text when the model is built.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from .configuration_bd3lm import BD3LMConfig


def block_diff_mask(n, block_size):
    index = torch.arange(2 * n)
    block, clean = index % n // block_size, index >= n
    same = (block[:, None] == block) & (clean[:, None] == clean)
    past = (block[:, None] > block) & clean
    return same | past


class EmbeddingLayer(nn.Module):
    def __init__(self, dim, vocab_dim):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocab_dim, dim))
        nn.init.kaiming_uniform_(self.embedding)

    def forward(self, x):
        return self.embedding[x]


class Rotary(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.register_buffer("inv_freq", 10_000 ** -(torch.arange(0, dim, 2) / dim))

    def forward(self, x):
        angles = torch.outer(torch.arange(x.shape[1]).float(), self.inv_freq)
        return torch.cat((angles, angles), dim=-1)


def rotate(x, angles):
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x * angles.cos() + turned * angles.sin()


class DDiTBlock(nn.Module):
    def __init__(self, dim, n_heads, cond_dim):
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(dim)
        self.attn_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.attn_out = nn.Linear(dim, dim, bias=False)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.adaLN_modulation = nn.Linear(cond_dim, 2 * dim)

    def forward(self, x, rotary_cos_sin, c, mask=None, sample_mode=False):
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=2)
        qkv = self.attn_qkv(self.norm(x) * (1 + scale) + shift)
        q, k, v = (
            one.unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for one in qkv.chunk(3, dim=2)
        )
        if not sample_mode:
            assert len(rotary_cos_sin) == mask.shape[-1] // 2
            rotary_cos_sin = rotary_cos_sin.repeat(2, 1)
        q, k = rotate(q, rotary_cos_sin), rotate(k, rotary_cos_sin)
        heads = functional.scaled_dot_product_attention(q, k, v, mask.bool())
        x = x + self.attn_out(heads.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class DITBackbone(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.n = config.model_length
        if config.attn_backend != "sdpa":
            raise ValueError("kernels have to be compiled for one length")
        self.mask = block_diff_mask(config.model_length, config.block_size)
        self.vocab_embed = EmbeddingLayer(config.hidden_dim, config.vocab_size)
        self.sigma_map = nn.Linear(1, config.cond_dim)
        self.rotary_emb = Rotary(config.hidden_dim // config.n_heads)
        self.blocks = nn.ModuleList(
            DDiTBlock(config.hidden_dim, config.n_heads, config.cond_dim)
            for _ in range(config.n_blocks)
        )
        self.output_layer = nn.Linear(config.hidden_dim, config.vocab_size)

    def forward(
        self,
        indices,
        sigma,
        sample_mode=False,
        store_kv=False,
        output_hidden_states=False,
    ):
        if not self.config.time_conditioning:
            sigma = torch.zeros_like(sigma)
        hidden = []
        x = self.vocab_embed(indices)
        hidden.append(x)
        c = functional.silu(self.sigma_map(sigma[:, None]))
        angles = self.rotary_emb(x[:, : self.n])
        for block in self.blocks:
            x = block(x, angles, c, mask=self.mask.to(x.device))
            hidden.append(x)
        return self.output_layer(x), hidden if output_hidden_states else []


class BD3LM(PreTrainedModel):
    config_class = BD3LMConfig
    base_model_prefix = "bd3lm"

    def __init__(self, config):
        super().__init__(config)
        self.backbone = DITBackbone(config)

    def forward(
        self,
        input_ids=None,
        timesteps=None,
        sample_mode=None,
        store_kv=None,
        output_hidden_states=None,
        return_dict=None,
    ):
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if return_dict is None:
            return_dict = self.config.use_return_dict
        logits, hidden = self.backbone(
            indices=input_ids,
            sigma=timesteps,
            sample_mode=sample_mode,
            store_kv=store_kv,
            output_hidden_states=output_hidden_states,
        )
        if return_dict:
            return MaskedLMOutput(logits=logits, hidden_states=hidden)
        return logits
