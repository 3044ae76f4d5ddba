"""Small tokenizers of every kind that a text backbone may bring."""

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from conftest import word_tokenizer
from helpers.remote_code.tokenization_dream import DreamTokenizer
from helpers.text_checkpoints import VOCABULARY, plain_tokenizer
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast

from sklearn_difffeat.backbones import locate_backbone
from sklearn_difffeat.backbones._plain_text import PlainTextTokenizer
from sklearn_difffeat.datasets import load_openclipart

# Where no token hides others.
NO_TOKEN = 10**6
# As of GPT-4 and of Qwen2: digits in threes, line ends with the sign before them.
MODERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Digits in threes from the end of a number.
GROUPED = r"\d{1,3}(?=(?:\d{3})*(?!\d))|[^\d]+"


def _texts():
    texts = load_openclipart().data["text"][:800]
    # So often that there are pieces of several digits.
    return [*texts, "naïve 中文 字 😀 !?\n\n", *["112 121 211 122 212 221"] * 50]


def byte_level(*, pattern=None, words=True):
    """GPT-2's kind; another pattern to split by, or none."""
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=words and pattern is None
    )
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        mask_token=AddedToken("<|mdm_mask|>", special=True),
    )


def roberta():
    """A byte-level one with a template and a mask that swallows spaces before it."""
    tokenizer = byte_level().backend_tokenizer
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.add_special_tokens(special)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token=AddedToken("<mask>", lstrip=True, rstrip=True, normalized=True),
    )


SENTENCE_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def _named(tokenizer):
    ends = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
    )


def unigram(*, normalizer=None):
    """SentencePiece's kind, whose model knows its control tokens as pieces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer or normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=500,
        special_tokens=SENTENCE_SPECIAL,
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return _named(tokenizer)


def metaspace():
    """The first LLaMA's kind: no words, pieces of bytes for what is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SENTENCE_SPECIAL + bytes_, show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    state = json.loads(tokenizer.to_str())
    state["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    state["added_tokens"] = state["added_tokens"][: len(SENTENCE_SPECIAL)]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return _named(tokenizer)


def _vocabulary(words):
    folder = Path(mkdtemp())
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    return str(folder / "vocab.json")


def slow(**changes):
    """One in Python, as Dream brings; its words are separated by whitespace."""
    names = dict.fromkeys(("pad_token", "eos_token", "unk_token"), "<|endoftext|>")
    return DreamTokenizer(_vocabulary(VOCABULARY), **names | changes)


class CharacterTokenizer(DreamTokenizer):
    """One in Python that can write any control token in its pieces."""

    def _tokenize(self, text):
        return list(text)


def slow_characters(**changes):
    letters = [chr(i) for i in range(32, 127)]
    names = {"eos_token": "<|endoftext|>", "pad_token": "<pad>", "unk_token": "<unk>"}
    names |= {"mask_token": "<|mask|>"} | changes
    tokenizer = CharacterTokenizer(_vocabulary(["<|endoftext|>", *letters]), **names)
    tokenizer.add_tokens(["<tool>"])
    return tokenizer


KINDS = {
    "embedded": lambda: AutoTokenizer.from_pretrained(
        locate_backbone("mdlm-tiny")[0].snapshot
    ),
    "words": word_tokenizer,
    "plain words": plain_tokenizer,
    "byte-level": byte_level,
    "byte-level, modern": lambda: byte_level(pattern=MODERN),
    "byte-level, grouped digits": lambda: byte_level(pattern=GROUPED),
    "byte-level, no words": lambda: byte_level(words=False),
    "roberta": roberta,
    "unigram": unigram,
    "metaspace": metaspace,
    "slow": slow,
    "slow characters": slow_characters,
}


@cache
def tokenizer_of(kind):
    """Return one tokenizer of a kind, the same at each call."""
    tokenizer = KINDS[kind]()
    assert isinstance(tokenizer, (PreTrainedTokenizerFast, PreTrainedTokenizer))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def reader_of(kind):
    return PlainTextTokenizer(tokenizer_of(kind), NO_TOKEN)
