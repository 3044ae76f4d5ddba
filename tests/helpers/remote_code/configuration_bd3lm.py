"""The configuration of ``kuleshov-group/bd3lm-owt-block_size16``, by its names."""

from transformers import PretrainedConfig


class BD3LMConfig(PretrainedConfig):
    model_type = "bd3lm"

    def __init__(
        self,
        block_size=4,
        attn_backend="flex",
        vocab_size=50258,
        model_length=1024,
        hidden_dim=768,
        cond_dim=128,
        n_blocks=12,
        n_heads=12,
        dropout=0.1,
        time_conditioning=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.block_size = block_size
        self.attn_backend = attn_backend
        self.vocab_size = vocab_size
        self.model_length = model_length
        self.hidden_dim = hidden_dim
        self.cond_dim = cond_dim
        self.n_blocks = n_blocks
        self.n_heads = n_heads
        self.dropout = dropout
        self.time_conditioning = time_conditioning
