"""A small LLaDA 2 with the signatures and names of ``inclusionAI/LLaDA2.0-mini``.

As there: tokens choose an expert, a part of each head is rotated, the embedding has a
name of its own, and a mask has one shape and is added.
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutput
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from .configuration_llada2_moe import LLaDA2MoeConfig


class LLaDA2MoeRotaryEmbedding(nn.Module):
    def __init__(self, config):
        super().__init__()
        kind = (config.rope_scaling or {}).get("rope_type", "default")
        inv_freq, self.attention_scaling = ROPE_INIT_FUNCTIONS[kind](config)
        self.register_buffer("inv_freq", inv_freq, persistent=False)

    def forward(self, x, position_ids):
        angles = position_ids[:, :, None].float() * self.inv_freq
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def rotate(x, cos, sin):
    x, kept = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], dim=-1)
    first, second = x.chunk(2, dim=-1)
    turned = x * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((turned, kept), dim=-1)


class LLaDA2MoeDecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        dim, hidden = config.hidden_size, config.intermediate_size
        self.n_heads = config.num_attention_heads
        self.input_layernorm = nn.RMSNorm(dim)
        self.post_attention_layernorm = nn.RMSNorm(dim)
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v_proj, self.o_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.gate = nn.Linear(dim, 2, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, dim))
            for _ in range(2)
        )

    def forward(self, hidden_states, attention_mask=None, position_embeddings=None):
        normed = self.input_layernorm(hidden_states)
        q, k, v = (
            proj(normed).unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, *position_embeddings), rotate(k, *position_embeddings)
        scores = q @ k.mT / q.shape[-1] ** 0.5 + attention_mask
        heads = scores.softmax(dim=-1) @ v
        hidden_states = hidden_states + self.o_proj(heads.transpose(1, 2).flatten(2))
        normed = self.post_attention_layernorm(hidden_states)
        shares = self.gate(normed).softmax(dim=-1)
        chosen = shares.argmax(dim=-1, keepdim=True)
        found = torch.stack([expert(normed) for expert in self.experts], dim=-1)
        found = found.gather(-1, chosen[:, :, None].expand(*found.shape[:-1], 1))
        return (hidden_states + found[..., 0] * shares.amax(dim=-1, keepdim=True),)


class LLaDA2MoeModel(PreTrainedModel):
    config_class = LLaDA2MoeConfig
    base_model_prefix = "model"
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            LLaDA2MoeDecoderLayer(config) for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size)
        self.rotary_emb = LLaDA2MoeRotaryEmbedding(config)
        self.post_init()

    def get_input_embeddings(self):
        return self.word_embeddings

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        output_router_logits=None,
        return_dict=None,
        **kwargs,
    ):
        n_rows, length = input_ids.shape
        if attention_mask.shape != (n_rows, 1, length, length):
            raise ValueError("only block attention masks are supported")
        x = self.word_embeddings(input_ids)
        if position_ids is None:
            position_ids = torch.arange(x.shape[1], device=x.device)[None]
        rotary = self.rotary_emb(x, position_ids)
        for layer in self.layers:
            x = layer(x, attention_mask, rotary)[0]
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x))


class LLaDA2MoeModelLM(PreTrainedModel):
    config_class = LLaDA2MoeConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _tied_weights_keys = ["lm_head.weight"]  # noqa: RUF012 (as published)

    def __init__(self, config):
        super().__init__(config)
        self.model = LLaDA2MoeModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, position_ids=None):
        x = self.model(input_ids, attention_mask, position_ids).last_hidden_state
        return CausalLMOutput(logits=self.lm_head(x))
