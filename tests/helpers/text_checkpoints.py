"""Small checkpoints of every text family, in the layout they have on the hub."""

import json
import shutil
import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import torch
from conftest import OTHERS, WORDS, build_masked_lm, word_tokenizer
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, dynamic_module_utils

from sklearn_difffeat import TextDiffusionFeatureTransformer, release_backbones

NATIVE = ("bert", "roberta", "distilbert", "modernbert", *OTHERS)
# Block diffusion models: they are run on masked and unmasked texts, in blocks of 4.
BY_BLOCKS = ("bd3lm", "sdar", "llada2_moe")
REMOTE = ("mdlm", "llada", "dream", "lladamoe", *BY_BLOCKS)
FAMILIES = (*NATIVE, *REMOTE)
CODE = Path(__file__).parent / "remote_code"
VOCABULARY = {word: i for i, word in enumerate(["<|endoftext|>", *WORDS])}
MASK = len(VOCABULARY)
TEXTS = ["a red apple", "the small bird and the blue boat", "house", "a red boat"]


def build_remote(family, **changes):
    """Return a model of 3 blocks of width 16 by the code that it is saved with."""
    torch.manual_seed(0)
    if family == "mdlm":
        from helpers.remote_code.modeling_mdlm import MDLM, MDLMConfig

        sizes = {"hidden_dim": 16, "cond_dim": 8, "n_blocks": 3, "n_heads": 2}
        sizes |= {"vocab_size": MASK + 1, "model_length": 24}
        return MDLM(MDLMConfig(**sizes | changes))
    if family == "llada":
        from helpers.remote_code.modeling_llada import LLaDAConfig, LLaDAModelLM

        sizes = {"d_model": 16, "n_layers": 3, "n_heads": 2, "mlp_hidden_size": 32}
        sizes |= {"vocab_size": MASK + 1, "max_sequence_length": 24}
        return LLaDAModelLM(LLaDAConfig(**sizes | {"mask_token_id": MASK} | changes))
    if family == "bd3lm":
        from helpers.remote_code.modeling_bd3lm import BD3LM, BD3LMConfig

        sizes = {"hidden_dim": 16, "cond_dim": 8, "n_blocks": 3, "n_heads": 2}
        sizes |= {"vocab_size": MASK + 1, "model_length": 24, "attn_backend": "sdpa"}
        return BD3LM(BD3LMConfig(**sizes | changes))
    if family in KINDS:
        names, kind = KINDS[family]
        code = import_module(f"helpers.remote_code.modeling_{family}")
        sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
        sizes |= {"intermediate_size": 32, "vocab_size": MASK + 1}
        sizes |= {"max_position_embeddings": 24, "mask_token_id": MASK}
        config = getattr(code, f"{names}Config")(**sizes | {"block_size": 4} | changes)
        config.rope_parameters = {"rope_type": "linear", "factor": 1.0} | (
            {"rope_theta": config.rope_theta, "partial_rotary_factor": 0.5}
            if family == "llada2_moe"
            else {"rope_theta": config.rope_theta}
        )
        return getattr(code, kind)(config)
    from helpers.remote_code.modeling_dream import DreamConfig, DreamModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "vocab_size": MASK + 1}
    sizes |= {"max_position_embeddings": 24, "mask_token_id": MASK, "pad_token_id": 0}
    config = DreamConfig(**sizes | changes)
    # What the published configuration means; this transformers has no "default".
    config.rope_parameters = {
        "rope_type": "linear", "factor": 1.0, "rope_theta": 10000.0,
    }  # fmt: skip
    return DreamModel(config)


KINDS = {
    "lladamoe": ("LLaDAMoE", "LLaDAMoEModelLM"),
    "llada2_moe": ("LLaDA2Moe", "LLaDA2MoeModelLM"),
    "sdar": ("SDAR", "SDARForCausalLM"),
}


LAYERED = "tie_word_embeddings", "model.embed_tokens.weight", "lm_head.weight"
# What says that a model's head is its embedding, and the names of the two.
TIED = {
    "lladamoe": LAYERED,
    "llada2_moe": (
        "tie_word_embeddings",
        "model.word_embeddings.weight",
        "lm_head.weight",
    ),
    "sdar": LAYERED,
    "mdlm": (
        "tie_word_embeddings",
        "backbone.vocab_embed.embedding",
        "backbone.output_layer.weight",
    ),
    "llada": (
        "weight_tying",
        "model.transformer.wte.weight",
        "model.transformer.ff_out.weight",
    ),
    "dream": LAYERED,
}
TIED["bd3lm"] = TIED["mdlm"]


def save_tied(family, folder, stored):
    """Save a tied model, its one tensor under the names ``stored``, and return it.

    ``stored`` is a subset of {"embedding", "head"}.
    """
    flag, *names = TIED[family]
    model = save_remote(family, folder)
    names = dict(zip(("embedding", "head"), names, strict=True))
    tensors = model.state_dict()
    for name in names.values():
        tensor = tensors.pop(name)
        if name == names["embedding"]:
            embedding = tensor
    tensors |= {names[one]: embedding.clone() for one in stored}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {flag: True}))
    return model


def published_config(family, model):
    """Return the keys that ``config.json`` has on the hub."""
    config = {
        key: value
        for key, value in model.config.to_dict().items()
        if key not in ("rope_parameters", "transformers_version", "auto_map")
    }
    name = type(model).__name__
    config |= {
        "architectures": [name],
        "model_type": type(model.config).model_type,
        "auto_map": {
            "AutoConfig": f"configuration_{family}.{type(model.config).__name__}",
            "AutoModel": f"modeling_{family}.{name}",
        },
    }
    if family in KINDS:
        body = type(model.model).__name__
        config["auto_map"] |= {
            "AutoModel": f"modeling_{family}.{body}",
            "AutoModelForCausalLM": f"modeling_{family}.{name}",
        }
        config |= {"rope_scaling": None, "rope_theta": model.config.rope_theta}
    if family == "bd3lm":
        config["attn_backend"] = "flex"
    if family == "dream":
        config |= {"rope_scaling": None, "rope_theta": 10000.0}
    return config


def save_remote(family, folder, **changes):
    model = build_remote(family, **changes)
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    config = published_config(family, model)
    (folder / "config.json").write_text(json.dumps(config))
    for file in CODE.glob(f"*_{family}.py"):
        shutil.copy(file, folder)
    if family == "dream":
        (folder / "vocab.json").write_text(json.dumps(VOCABULARY))
        settings = {
            "tokenizer_class": "DreamTokenizer",
            "auto_map": {
                "AutoTokenizer": ["tokenization_dream.DreamTokenizer", None],
            },
            "pad_token": "<|endoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    else:
        plain_tokenizer().save_pretrained(folder)
    return model.eval()


def plain_tokenizer():
    """Without special tokens around a text and without padding, as GPT-2's."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )


def save(family, folder, **changes):
    """Save a checkpoint of a family and return its model, ready to be run."""
    if family in REMOTE:
        return save_remote(family, folder, **changes)
    model = build_masked_lm(family)
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return model.eval()


@contextmanager
def remote_code_in(folder):
    """Where transformers puts the code of checkpoints before it imports it."""
    forget_remote_code()
    with (
        patch.object(dynamic_module_utils, "HF_MODULES_CACHE", str(folder)),
        patch.object(sys, "path", [str(folder), *sys.path]),
    ):
        yield
    release_backbones()
    forget_remote_code()


def forget_remote_code():
    """Let code be imported from another folder than the last."""
    for name in [one for one in sys.modules if one.startswith("transformers_modules")]:
        del sys.modules[name]


def transformer_of(folder, **options):
    return TextDiffusionFeatureTransformer(
        folder, trust_remote_code=True, dtype="float32", **options
    )


def blocks_of(family, model):
    """Return the embedding and the blocks, as the family's own code names them."""
    if family in ("mdlm", "bd3lm"):
        return [model.backbone.vocab_embed, *model.backbone.blocks]
    if family == "llada":
        return [model.model.transformer.wte, *model.model.transformer.blocks]
    if family == "llada2_moe":
        return [model.model.word_embeddings, *model.model.layers]
    if family in ("dream", "lladamoe", "sdar"):
        return [model.model.embed_tokens, *model.model.layers]
    if family == "modernbert":
        return [model.model.embeddings, *model.model.layers]
    if family == "distilbert":
        body = model.distilbert
        return [body.embeddings, *body.transformer.layer]
    if family == "eurobert":
        return [model.model.embed_tokens, *model.model.layers]
    if family == "nomic_bert":
        return [model.nomic_bert.embeddings, *model.nomic_bert.layers]
    if family == "electra":
        return [model.electra.embeddings_project, *model.electra.encoder.layer]
    body = getattr(model, model.base_model_prefix)
    return [body.embeddings, *body.encoder.layer]
