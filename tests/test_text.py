"""Texts: masking, pooling, truncation."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_difffeat import TextDiffusionFeatureTransformer
from sklearn_difffeat.backbones._noise import hide_tokens
from sklearn_difffeat.inputs._text_reader import text_keys


def test_long_texts_are_cut_with_one_warning_that_counts_the_rows():
    texts = ["word " * 500, "a bird", "other words " * 300]
    with pytest.warns(
        UserWarning, match="2 of 3 texts are longer than the 256"
    ) as seen:
        features = TextDiffusionFeatureTransformer(batch_size=1).fit_transform(texts)
    assert len(seen) == 1
    assert np.isfinite(features).all()
    with pytest.warns(UserWarning, match="1 of 1 texts are longer than the 5 tokens"):
        TextDiffusionFeatureTransformer(max_length=5).fit_transform(
            ["one two three four"]
        )


def test_text_that_just_fits_is_not_called_cut(bert_folder):
    transformer = TextDiffusionFeatureTransformer(bert_folder, max_length=5)
    transformer.fit_transform(["a red bird"])


def test_max_length_beyond_the_positions_is_an_error():
    with pytest.raises(ValueError, match="max_length=257 exceeds the 256 positions"):
        TextDiffusionFeatureTransformer(max_length=257).fit(["a"])


def test_a_cell_that_is_no_text_is_named_with_its_row():
    for cell in (3, b"bytes", ["a"], np.zeros(3)):
        with pytest.raises(TypeError, match="row 1 of X: a cell of type"):
            TextDiffusionFeatureTransformer().fit(["a", cell])


def test_texts_without_tokens_give_finite_features():
    features = TextDiffusionFeatureTransformer().fit_transform(["", " \n", "\u200b"])
    assert np.isfinite(features).all()


@pytest.mark.filterwarnings("ignore:.*mostly unknown tokens:UserWarning")
@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=2, max_size=5))
def test_any_text_gives_the_same_features_alone_and_in_company(texts):
    transformer = TextDiffusionFeatureTransformer(timestep=300).fit(texts)
    together = transformer.transform(texts)
    assert np.isfinite(together).all()
    alone = np.vstack([transformer.transform([text]) for text in texts])
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)


def test_masks_are_nested_in_the_timestep_and_blind_to_padding():
    real = torch.zeros(2, 30, dtype=torch.bool)
    real[0, 1:9] = True
    real[1, 1:29] = True
    keys = text_keys([b"the first text's", b"and the second's"])
    masks = [hide_tokens(real, keys, rate, 0, 0) for rate in np.linspace(0, 1, 21)]
    assert not masks[0].any()
    assert torch.equal(masks[-1], real)
    for smaller, larger in itertools.pairwise(masks):
        assert not (smaller & ~larger).any()
    padded = torch.nn.functional.pad(real, (0, 40))
    assert torch.equal(hide_tokens(padded, keys, 0.4, 0, 0)[:, :30], masks[8])
    assert masks[10][1].sum().item() == pytest.approx(14, abs=6)
    assert not torch.equal(hide_tokens(real, keys, 0.5, 0, 1), masks[10])


def test_mean_pooling_ignores_padding_and_special_tokens(bert_folder):
    from sklearn_difffeat.backbones._pooling import pool_text_tokens

    hidden = torch.arange(8.0).reshape(1, 4, 2)
    attention = torch.tensor([[1, 1, 1, 0]])
    real = torch.tensor([[False, True, True, False]])
    mean = pool_text_tokens(hidden, real, attention, "mean")
    assert mean.tolist() == [[3.0, 4.0]]
    assert pool_text_tokens(hidden, real, attention, "max").tolist() == [[4.0, 5.0]]
    nothing = torch.zeros_like(real)
    assert pool_text_tokens(hidden, nothing, attention, "mean").tolist() == [[2.0, 3.0]]


def test_masking_every_token_leaves_only_the_length_to_see(bert_folder):
    transformer = TextDiffusionFeatureTransformer(bert_folder, timestep=999)
    features = transformer.fit_transform(["a red bird", "the blue boat", "a flag"])
    np.testing.assert_allclose(features[0], features[1], rtol=1e-4, atol=1e-6)
    assert np.abs(features[0] - features[2]).max() > 1e-5


def test_max_length_without_room_for_a_word_is_an_error():
    with pytest.raises(ValueError, match="max_length=2 leaves no room"):
        TextDiffusionFeatureTransformer(max_length=2).fit_transform(["a bird"])


def test_text_that_is_not_valid_unicode_is_named_with_its_row():
    with pytest.raises(ValueError, match="row 1 of X: the text is not valid Unicode"):
        TextDiffusionFeatureTransformer().fit(["a", "b \ud800"])


def test_pooling_sums_in_single_precision():
    from sklearn_difffeat.backbones._pooling import pool_text_tokens

    hidden = torch.full((1, 8192, 1), 20.0, dtype=torch.float16)
    real = torch.ones(1, 8192, dtype=torch.bool)
    assert pool_text_tokens(hidden, real, real, "mean").tolist() == [[20.0]]


def test_a_sliding_attention_window_sees_no_padding(sliding_window_folder):
    texts = ["a bird", "the red bird and the blue boat of the house on the flag"]
    transformer = TextDiffusionFeatureTransformer(sliding_window_folder).fit(texts)
    alone = np.vstack([transformer.transform([text]) for text in texts])
    np.testing.assert_allclose(
        transformer.transform(texts), alone, rtol=1e-3, atol=1e-5
    )
