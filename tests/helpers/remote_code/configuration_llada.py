"""The configuration of LLaDA, by the names of ``GSAI-ML/LLaDA-8B-Base``."""

from transformers import PretrainedConfig


class LLaDAConfig(PretrainedConfig):
    model_type = "llada"

    def __init__(
        self,
        d_model=4096,
        n_heads=32,
        n_layers=32,
        mlp_hidden_size=12288,
        vocab_size=126464,
        max_sequence_length=4096,
        mask_token_id=126336,
        weight_tying=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.d_model = d_model
        self.n_heads = n_heads
        self.n_layers = n_layers
        self.mlp_hidden_size = mlp_hidden_size
        self.vocab_size = vocab_size
        self.max_sequence_length = max_sequence_length
        self.mask_token_id = mask_token_id
        self.weight_tying = weight_tying
