"""What small text-to-image pipelines share: text encoders, tokenizers, VAEs."""

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from tokenizers import pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    GlmConfig,
    GlmModel,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}
UNCHECKED = {
    "safety_checker": None,
    "feature_extractor": None,
    "requires_safety_checker": False,
}


def texts(*pairs):
    """Name text encoders and their tokenizers as pipelines do."""
    names = [("text_encoder", "tokenizer")]
    names += [(f"text_encoder_{n}", f"tokenizer_{n}") for n in (2, 3)]
    parts = {}
    for pair, (encoder, tokenizer) in zip(pairs, names, strict=False):
        parts |= {encoder: pair[0], tokenizer: pair[1]}
    return parts


def clip(*, projected=False):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "projection_dim": 16}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    config = CLIPTextConfig(vocab_size=514, **sizes, **layers, **ids)
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return kind(config), tokenizer


def t5():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in LETTERS]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(T5Config(vocab_size=32, **sizes)), tokenizer


LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
WIDTHS = {"hidden_size": 16, "intermediate_size": 16}
LANGUAGE = {"vocab_size": 260, **WIDTHS, **LAYERS}


def gemma():
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=[])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    config = Gemma2Config(**LANGUAGE | {"vocab_size": 32, "head_dim": 8})
    return Gemma2Model(config), tokenizer


# What a chat template makes of messages, whose contents may be parts.
CHAT = """{% for message in messages %}{{ message['role'] }}:
{%- if message['content'] is string %}{{ message['content'] }}
{%- else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}
{%- endif %}
{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"""


def qwen_tokenizer():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    vocabulary["<|endoftext|>"] = len(vocabulary)
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen_processor():
    """Return a tokenizer in the place of Qwen-Image 2.1's processor.

    The processor itself takes torchvision, for films.
    """
    plain = qwen_tokenizer()

    class Qwen2Tokenizer(type(plain)):
        tokenizer = property(lambda self: self)

        def apply_chat_template(self, *args, **options):
            return [super().apply_chat_template(*args, **options)]

    # Saved under the name that it stands for.
    Qwen2Tokenizer.__module__ = type(plain).__module__
    plain.add_special_tokens({"additional_special_tokens": ["<|image_pad|>"]})
    plain.__class__ = Qwen2Tokenizer
    return plain


def qwen3(kind, n_layers=2):
    config = Qwen3Config(**LANGUAGE | {"head_dim": 8, "num_hidden_layers": n_layers})
    return kind(config), qwen_tokenizer()


VISION = {"depth": 1, "num_heads": 2, "out_hidden_size": 16, **WIDTHS}


def rope(*sections):
    return {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [*sections]}


def qwen_vl():
    text = LANGUAGE | {"rope_parameters": rope(1, 1, 2)}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=VISION)
    return Qwen2_5_VLForConditionalGeneration(config), qwen_tokenizer()


def qwen3_vl():
    text = LANGUAGE | {"rope_parameters": rope(2, 1, 1), "head_dim": 8}
    vision = VISION | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    config = Qwen3VLConfig(text_config=text, vision_config=vision)
    return Qwen3VLForConditionalGeneration(config)


def mistral3():
    text = LANGUAGE | {"model_type": "mistral", "head_dim": 8, "num_hidden_layers": 30}
    vision = {"model_type": "pixtral", "num_hidden_layers": 1, "head_dim": 8}
    vision |= {"num_attention_heads": 2, **WIDTHS}
    config = Mistral3Config(text_config=text, vision_config=vision)
    return Mistral3ForConditionalGeneration(config), qwen_tokenizer()


def glm():
    tokenizer = qwen_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 256)]
    )
    config = GlmConfig(**LANGUAGE | {"head_dim": 8, "pad_token_id": 0})
    return GlmModel(config), tokenizer


def vae(**options):
    """Return a VAE that shrinks pictures to an eighth, in four levels as SD's."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        **options,
    )


def flux_vae():
    return vae(scaling_factor=0.3611, shift_factor=0.1159)


def flow_scheduler():
    return FlowMatchEulerDiscreteScheduler(shift=3.0)
