"""Of a long text only as much is read as matters."""

from contextlib import contextmanager

import pytest
import torch
from helpers.tokenizers_of_kinds import KINDS, NO_TOKEN, reader_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sklearn_difffeat.backbones import _plain_text
from sklearn_difffeat.backbones._plain_text import PlainTextTokenizer

PIECES = [
    "a", "ab", "the red apple ", "word ", "  ", "   \n\n", "\t", "!", "!\n\n", "?! ",
    "7", "4567890123", "1,234,567.8 ", "中", "文字处理", "\uff0c",
    "😀", "👨‍👩‍👧", "🏳️‍🌈 ",
    "e\u0301", "\u0301" * 30, "각", "ᄀ", "ᅡ", "ᆨ", "ﬁ", "İ", "Σ", "ς", "[MASK] ",
    "</s>", " <mask>", "<|endoftext|>", "\u200b", "\x00", "\x1d", "\ufeff",
    "x" * 120 + " ", "a" * 160, "_", "- - ", "'s", "\uff12", "\u3000", "\xa0", "\u2028",
    "ABCDEFgh",
]  # fmt: skip
long_texts = st.tuples(
    st.sampled_from(["", "\u200b" * 900, " " * 900, "\u0301" * 900, "\x00" * 900]),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=6),
    st.integers(50, 700),
    st.randoms(use_true_random=False),
).map(lambda p: p[0] + "".join(p[3].choices(p[1], k=p[2])))


@contextmanager
def counting(tokenizer):
    """Count the characters that are handed to a tokenizer."""
    handed = []
    encode, tokenize = tokenizer._encode_plus, tokenizer.tokenize

    def counted_encode(text, *args, **options):
        handed.extend(map(len, [text] if isinstance(text, str) else text))
        return encode(text, *args, **options)

    def counted_tokenize(text, **options):
        handed.append(len(text))
        return tokenize(text, **options)

    with pytest.MonkeyPatch.context() as patch:
        if tokenizer.is_fast:
            patch.setattr(tokenizer, "_encode_plus", counted_encode)
        else:
            patch.setattr(tokenizer, "tokenize", counted_tokenize)
        yield handed


def whole(reader, texts, max_length):
    """Encode all of every text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_enough_of", lambda text, max_length: text)
        return reader.encode(texts, max_length)


def assert_same(found, expected):
    assert torch.equal(found.ids, expected.ids)
    assert torch.equal(found.attention, expected.attention)
    assert torch.equal(found.real, expected.real)
    assert found.truncated == expected.truncated


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    texts=st.lists(long_texts, min_size=1, max_size=3), max_length=st.integers(3, 12)
)
def test_a_part_of_a_text_gives_what_the_whole_text_does(kind, texts, max_length):
    reader = reader_of(kind)
    texts = ["a red apple", *texts]
    with pytest.MonkeyPatch.context() as patch:
        # Less than is read in truth, so that more texts are cut nearer to the limit.
        patch.setattr(_plain_text, "CHARACTERS_PER_TOKEN", 4)
        patch.setattr(_plain_text, "MARGIN", 16)
        found = reader.encode(texts, max_length)
    assert_same(found, whole(reader, texts, max_length))


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_long_text_only_the_beginning_is_read(kind):
    reader = reader_of(kind)
    long = "the red apple and two small birds! " * 30_000
    texts = ["a red apple", long, "a bird"]
    with counting(reader.tokenizer) as handed:
        found = reader.encode(texts, 20)
    assert sum(handed) < 6 * 32 * 20
    assert found.truncated == [1]
    assert_same(found, whole(reader, [texts[0], long[:70_000], texts[2]], 20))


def test_of_a_long_text_without_spaces_only_the_beginning_is_read():
    for kind in ("embedded", "byte-level", "byte-level, modern"):
        reader = reader_of(kind)
        long = "红色的苹果和两只小鸟\uff0c在树上。" * 30_000
        with counting(reader.tokenizer) as handed:
            found = reader.encode([long], 20)
        assert sum(handed) < 20_000
        assert_same(found, whole(reader, [long[:60_000]], 20))


def test_a_text_that_says_little_at_first_is_read_further():
    reader = reader_of("embedded")
    for empty in (" " * 5000, "\u200b" * 5000, "\x00" * 5000, "x" * 5000 + " "):
        text = empty + "the red apple " * 9
        with counting(reader.tokenizer) as handed:
            found = reader.encode([text], 8)
        # Each part is four times as long as the one before.
        assert len(text) <= sum(handed) < 2.5 * len(text)
        assert_same(found, whole(reader, [text], 8))
        assert found.truncated == [0]
    text = " " * 1000 + "the red apple and two small birds " * 30_000
    with counting(reader.tokenizer) as handed:
        found = reader.encode([text], 8)
    assert sum(handed) < 10_000
    assert_same(found, whole(reader, [text], 8))
    blank = " " * 50_000
    assert reader.encode([blank], 8).truncated == []


def test_texts_of_common_lengths_are_read_once():
    reader = reader_of("embedded")
    texts = ["a red apple", "two birds " * 50, "[MASK]" * 20]
    with counting(reader.tokenizer) as handed:
        reader.encode(texts, 128)
    assert handed == [len(text) for text in texts]


def test_a_number_is_not_cut_since_its_digits_may_be_grouped_from_its_end():
    reader = reader_of("byte-level, grouped digits")
    for n_digits in (5000, 5001, 5002):
        number = ("112212" * 900)[:n_digits]
        for text in (number, "12 a 3456," + number):
            found = reader.encode([text], 8)
            assert_same(found, whole(reader, [text], 8))
            assert found.truncated == [0]


@pytest.mark.parametrize("kind", ["byte-level", "slow"])
def test_a_tokenizer_that_keeps_the_end_of_a_text_reads_all_of_it(kind):
    tokenizer = KINDS[kind]()
    tokenizer.truncation_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    reader = PlainTextTokenizer(tokenizer, NO_TOKEN)
    text = "a red apple " * 2000 + "the blue boat"
    ids, _, _, truncated = reader.encode([text], 3)
    assert truncated == [0]
    assert tokenizer.decode(ids[0]).split()[-1:] == ["boat"]


def test_texts_that_just_fit_are_not_called_cut_by_any_tokenizer():
    for kind in KINDS:
        reader = reader_of(kind)
        text = "a red apple"
        count = int(reader.encode([text], 40).attention.sum())
        assert reader.encode([text], count).truncated == []
        assert reader.encode([text, ""], count - 1).truncated == [0]
