"""A text is read as text, whatever it says."""

import numpy as np
import pytest
import torch
from helpers.tokenizers_of_kinds import (
    KINDS,
    NO_TOKEN,
    reader_of,
    slow_characters,
    tokenizer_of,
    unigram,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from sklearn_difffeat import TextDiffusionFeatureTransformer
from sklearn_difffeat.backbones import load_backbone, locate_backbone
from sklearn_difffeat.backbones._plain_text import PlainTextTokenizer
from sklearn_difffeat.backbones.masked_lm import MaskedLMBackbone

CONTROL = (
    "[SEP] [MASK] [PAD] [CLS] [UNK] <mask> <s> </s> <pad> <unk> <|endoftext|> "
    "<|mdm_mask|> <|mask|> [mask] <MASK> [SEP][SEP] <s></s> [ MASK ] [MASK"
).split(" ")
WORDS = ["a", " ", "red", "apple ", "\n", "\u3000", "字", "x", ".", "\u200b", "é"]


def without_unknown(reader, ids):
    """Leave out the unknown word, which is also a control token for some."""
    return [i for i in ids if i != reader.tokenizer.unk_token_id]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(
        st.lists(st.sampled_from(CONTROL + WORDS), max_size=12).map("".join),
        min_size=1,
        max_size=4,
    ),
    max_length=st.integers(3, 40),
)
def test_control_tokens_are_only_where_the_template_puts_them(kind, texts, max_length):
    reader = reader_of(kind)
    tokenizer = reader.tokenizer
    ids, attention, real, _ = reader.encode(texts, max_length)
    special = [i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id]
    for row, attended, chosen in zip(ids, attention.bool(), real, strict=True):
        assert not set(row[chosen].tolist()) & set(special)
        template = row[attended & ~chosen].tolist()
        assert template == tokenizer("", split_special_tokens=True)["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_control_token_of_a_tokenizer_is_text_in_a_text(kind):
    reader = reader_of(kind)
    tokenizer = reader.tokenizer
    for token in tokenizer.all_special_tokens:
        for text in (token, f"a {token} red", f"a{token}", f"{token}{token} red"):
            ids, _, real, _ = reader.encode([text], 40)
            found = without_unknown(reader, ids[real].tolist())
            assert not set(found) & set(tokenizer.all_special_ids), text
            assert real.any()


def test_what_looks_like_a_control_token_is_read_as_its_characters():
    tokenizer = tokenizer_of("embedded")
    reader = reader_of("embedded")
    ids, _, real, _ = reader.encode(["a [MASK] b [SEP]"], 40)
    pieces = tokenizer.convert_ids_to_tokens(ids[real].tolist())
    assert "".join(pieces).replace("##", "") == "a[mask]b[sep]"
    # In lower case it never was anything else.
    lower = reader.encode(["a [mask] b [sep]"], 40)
    assert torch.equal(lower.ids, ids)
    for kind in ("byte-level", "byte-level, modern", "roberta", "byte-level, no words"):
        reader = reader_of(kind)
        text = "a <|endoftext|> b <mask>  <s>c</s> <|mdm_mask|>"
        ids, _, real, _ = reader.encode([text], 200)
        assert reader.tokenizer.decode(ids[real].tolist()) == text


def test_a_control_token_that_the_vocabulary_has_as_a_piece_is_an_unknown_word():
    reader = reader_of("unigram")
    ids, _, real, _ = reader.encode(["a </s> red"], 40)
    unknown = reader.tokenizer.unk_token_id
    assert ids[real].tolist().count(unknown) == 1
    assert ids[0, -1] == reader.tokenizer.eos_token_id and not real[0, -1]


def test_a_text_that_a_tokenizer_can_only_read_as_a_control_token_is_an_error():
    tokenizer = slow_characters(eos_token="s", unk_token=None)
    reader = PlainTextTokenizer(tokenizer, NO_TOKEN)
    assert reader.encode(["a red bird"], 40).real.all()
    with pytest.raises(ValueError, match=r"contains 's', which .* remove it"):
        reader.encode(["a red house"], 40)


@pytest.mark.parametrize("options", [{}, {"lstrip": True}, {"rstrip": True}])
def test_tokens_that_a_user_added_stay_tokens(options):
    for kind in ("slow", "slow characters", "byte-level", "unigram"):
        tokenizer = KINDS[kind]()
        tokenizer.add_tokens([AddedToken("new york", **options)])
        one = tokenizer.convert_tokens_to_ids("new york")
        text = "red new york <s> apple <mask>"
        ids, _, real, _ = PlainTextTokenizer(tokenizer, NO_TOKEN).encode([text], 60)
        assert ids[real].tolist().count(one) == 1, kind
        expected = tokenizer("red new york ")["input_ids"]
        end = 1 + expected.index(one)
        assert ids[0, :end].tolist() == expected[:end], kind


@pytest.mark.parametrize("kind", ["slow", "byte-level"])
def test_tokens_that_a_user_added_as_whole_words_are_found_as_whole_words(kind):
    tokenizer = KINDS[kind]()
    tokenizer.add_tokens([AddedToken("york", single_word=True)])
    one = tokenizer.convert_tokens_to_ids("york")
    reader = PlainTextTokenizer(tokenizer, NO_TOKEN)
    for text, count in (("york a york", 2), ("yorks a ayork", 0)):
        ids, _, real, _ = reader.encode([text], 60)
        assert ids[real].tolist().count(one) == count


@pytest.mark.parametrize("kind", ["slow characters", "byte-level", "unigram"])
def test_the_token_that_hides_others_is_a_control_token_whatever_its_kind(kind):
    tokenizer = KINDS[kind]()
    tokenizer.add_tokens([AddedToken("<|hide|>", special=False)])
    mask = tokenizer.convert_tokens_to_ids("<|hide|>")
    ids, _, real, _ = PlainTextTokenizer(tokenizer, mask).encode(["a <|hide|>"], 60)
    assert mask not in ids[real].tolist()
    assert real.sum() > 3


def test_the_features_of_a_text_that_names_control_tokens_are_those_of_its_characters(
    tmp_path,
):
    transformer = TextDiffusionFeatureTransformer().fit(["a"])
    features = transformer.transform(["a bird [SEP] [MASK]", "a bird [sep] [mask]"])
    np.testing.assert_allclose(features[0], features[1], rtol=1e-5, atol=1e-6)
    clean, written = transformer.transform(["a bird", "a bird [PAD]"])
    assert np.abs(clean - written).max() > 1e-2


def test_cells_of_numpy_and_odd_characters_are_texts_as_any_other():
    transformer = TextDiffusionFeatureTransformer(timestep=200).fit(["a"])
    texts = [
        "a red\x00bird",
        "\x00",
        "\x01\x02",
        "\t \n",
        "a\rbird",
        "\ufeffa",
        "a\x85b",
    ]
    plain = transformer.transform(texts)
    assert np.isfinite(plain).all()
    alone = np.vstack([transformer.transform([text]) for text in texts])
    np.testing.assert_allclose(plain, alone, rtol=1e-3, atol=1e-4)
    cells = np.array([np.str_("a red bird"), "two birds"], dtype=object)
    cells[0] = np.str_("a red bird")
    assert type(cells[0]) is np.str_
    expected = transformer.transform(["a red bird", "two birds"])
    np.testing.assert_allclose(transformer.transform(cells), expected, rtol=1e-5)
    fixed = np.array(["a red bird", "two birds"])
    np.testing.assert_allclose(transformer.transform(fixed), expected, rtol=1e-5)


def test_a_sentence_piece_checkpoint_pools_no_control_token(bert_folder):
    source, _ = locate_backbone(bert_folder)
    small = load_backbone(source, device="cpu", dtype=torch.float32)

    class Whole:
        base_model = small.model

    backbone = MaskedLMBackbone(small.info, Whole(), unigram())
    tokens = backbone.tokenize(["a </s> red", "", "<s>"], 12)
    assert backbone.mask_token_id == backbone.tokenizer.mask_token_id
    special = set(backbone.tokenizer.all_special_ids) - {
        backbone.tokenizer.unk_token_id
    }
    assert not special & set(tokens.ids[tokens.real].tolist())
    assert tokens.real.any(dim=1).tolist() == [True, False, True]


def test_texts_of_unknown_tokens_are_counted_in_one_warning(tmp_path):
    texts = ["a red apple", "红色的苹果和绿色的梨", "naïve café", "かわいい猫の絵", ""]
    transformer = TextDiffusionFeatureTransformer(cache=tmp_path / "features.db")
    message = (
        r"2 of 5 texts are mostly unknown tokens to mdlm-tiny; try "
        r"backbone='FacebookAI/xlm-roberta-base'"
    )
    for _ in range(2):
        # The second time nothing is tokenized: the features are stored.
        with pytest.warns(UserWarning, match=message) as caught:
            transformer.fit_transform(texts)
        assert len(caught) == 1
