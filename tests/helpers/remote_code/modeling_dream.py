"""A small Dream with the signatures and names of ``Dream-org/Dream-v0-Base-7B``.

As there: the rotary embedding is looked up by its type in transformers, its
frequencies are in no checkpoint, layers return tuples, and the attention mask goes to
the attention as it comes.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from .configuration_dream import DreamConfig


class DreamRotaryEmbedding(nn.Module):
    def __init__(self, config):
        super().__init__()
        scaling = config.rope_scaling
        if scaling is not None:
            self.rope_type = scaling.get("rope_type", scaling.get("type"))
        else:
            self.rope_type = "default"
        inv_freq, self.attention_scaling = ROPE_INIT_FUNCTIONS[self.rope_type](config)
        self.register_buffer("inv_freq", inv_freq, persistent=False)

    @torch.no_grad()
    def forward(self, x, position_ids):
        angles = position_ids[:, :, None].float() * self.inv_freq
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class DreamDecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        dim, hidden = config.hidden_size, config.intermediate_size
        self.n_heads = config.num_attention_heads
        self.input_layernorm = nn.RMSNorm(dim)
        self.post_attention_layernorm = nn.RMSNorm(dim)
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v_proj, self.o_proj = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, hidden_states, attention_mask=None, position_embeddings=None):
        normed = self.input_layernorm(hidden_states)
        q, k, v = (
            proj(normed).unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, *position_embeddings), rotate(k, *position_embeddings)
        mask = attention_mask if isinstance(attention_mask, torch.Tensor) else None
        heads = functional.scaled_dot_product_attention(q, k, v, mask, is_causal=False)
        hidden_states = hidden_states + self.o_proj(heads.transpose(1, 2).flatten(2))
        normed = self.post_attention_layernorm(hidden_states)
        gate = functional.silu(self.gate_proj(normed)) * self.up_proj(normed)
        return (hidden_states + self.down_proj(gate),)


class DreamPreTrainedModel(PreTrainedModel):
    config_class = DreamConfig
    base_model_prefix = "model"
    _supports_sdpa = True


class DreamBaseModel(DreamPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DreamDecoderLayer(config) for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size)
        self.rotary_emb = DreamRotaryEmbedding(config)
        self.post_init()

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
        return_dict=None,
        cache_position=None,
    ):
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if use_cache is None:
            use_cache = self.config.use_cache
        x = self.embed_tokens(input_ids)
        if position_ids is None:
            position_ids = torch.arange(x.shape[1], device=x.device)[None]
        rotary = self.rotary_emb(x, position_ids)
        hidden = ()
        for layer in self.layers:
            hidden += (x,)
            x = layer(x, attention_mask, position_embeddings=rotary)[0]
        return BaseModelOutput(
            last_hidden_state=self.norm(x),
            hidden_states=(*hidden, x) if output_hidden_states else None,
        )


class DreamModel(DreamPreTrainedModel):
    _tied_weights_keys = ["lm_head.weight"]  # noqa: RUF012 (as published)

    def __init__(self, config):
        super().__init__(config)
        self.model = DreamBaseModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **options):
        outputs = self.model(input_ids, attention_mask, **options)
        return MaskedLMOutput(logits=self.lm_head(outputs[0]))
