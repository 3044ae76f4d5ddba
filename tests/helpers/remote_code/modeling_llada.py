"""A small LLaDA with the signatures and names of ``GSAI-ML/LLaDA-8B-Base``.

As there: no ``post_init``, a ``tie_weights`` without arguments, blocks that return
(states, cache), and attention that does not see the mask.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_llada import LLaDAConfig


class LLaDALlamaBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        dim, hidden = config.d_model, config.mlp_hidden_size
        self.n_heads = config.n_heads
        self.attn_norm, self.ff_norm = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.attn_out = nn.Linear(dim, dim, bias=False)
        self.ff_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.ff_out = nn.Linear(hidden, dim, bias=False)

    def rotate(self, x):
        half = torch.arange(0, x.shape[-1], 2, dtype=torch.float) / x.shape[-1]
        angles = torch.outer(torch.arange(x.shape[2]).float(), 10_000**-half)
        cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-second, first), dim=-1) * sin

    def forward(self, x, attention_bias=None, layer_past=None, use_cache=False):
        normed = self.attn_norm(x)
        q, k, v = (
            proj(normed).unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        heads = functional.scaled_dot_product_attention(
            self.rotate(q), self.rotate(k), v, attn_mask=None, is_causal=False
        )
        x = x + self.attn_out(heads.transpose(1, 2).flatten(2))
        normed = self.ff_norm(x)
        gate = functional.silu(self.ff_proj(normed)) * self.up_proj(normed)
        return x + self.ff_out(gate), (k, v) if use_cache else None


class LLaDAModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.d_model),
                "emb_drop": nn.Dropout(0.0),
                "ln_f": nn.RMSNorm(config.d_model),
            }
        )
        blocks = [LLaDALlamaBlock(config) for _ in range(config.n_layers)]
        self.transformer.update({"blocks": nn.ModuleList(blocks)})
        head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.transformer.update({"ff_out": head})

    def forward(
        self,
        input_ids,
        input_embeddings=None,
        attention_mask=None,
        attention_bias=None,
        past_key_values=None,
        use_cache=False,
        last_logits_only=False,
        output_hidden_states=None,
    ):
        x = self.transformer.wte(input_ids)
        x = self.transformer.emb_drop(x)
        hidden = []
        for block in self.transformer.blocks:
            hidden.append(x)
            x, _ = block(x, attention_bias=attention_bias, use_cache=use_cache)
        x = self.transformer.ln_f(x)
        hidden.append(x)
        logits = self.transformer.ff_out(x)
        return CausalLMOutputWithPast(logits=logits, hidden_states=tuple(hidden))


class LLaDAModelLM(PreTrainedModel):
    config_class = LLaDAConfig
    base_model_prefix = "model"

    def __init__(self, config, model=None, init_params=False):
        super().__init__(config)
        self.model = model or LLaDAModel(config)

    def forward(
        self,
        input_ids=None,
        inputs_embeds=None,
        attention_mask=None,
        attention_bias=None,
        past_key_values=None,
        labels=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        cache_position=None,
    ):
        if use_cache is None:
            use_cache = self.config.use_cache
        return self.model.forward(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache
        )

    def tie_weights(self):
        if self.config.weight_tying:
            self.model.transformer.ff_out = self.model.transformer.wte
