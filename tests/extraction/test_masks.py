"""Which tokens of which texts are hidden."""

import hashlib
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sklearn_difffeat import TextDiffusionFeatureTransformer
from sklearn_difffeat.backbones import load_backbone, locate_backbone
from sklearn_difffeat.backbones._base import Tokens
from sklearn_difffeat.backbones._noise import hide_tokens
from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.extraction._forward import forward
from sklearn_difffeat.extraction._plan import Plan
from sklearn_difffeat.inputs._text_reader import text_keys
from sklearn_difffeat.text import TextReader

RATES = [t / 1000 for t in (1, 50, 100, 300, 500, 800, 999)]


def keys_of(texts):
    return text_keys([
        hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts
    ])  # fmt: skip


def real_of(lengths, width):
    """Return one token of a template before and after the tokens of each text."""
    places = torch.arange(width)
    return (places >= 1) & (places <= torch.tensor(lengths)[:, None])


def is_within(share, rate, count):
    """Whether a share of ``count`` draws is one that chance gives."""
    return stats.binom.cdf(round(share * count), count, rate) > 1e-7 and (
        stats.binom.sf(round(share * count) - 1, count, rate) > 1e-7
    )


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_over_short_texts_the_share_of_hidden_tokens_is_the_rate(rate, seed):
    keys = keys_of(f"text {i}" for i in range(20_000))
    hidden = hide_tokens(real_of([8] * 20_000, 10), keys, rate, seed, 0)[:, 1:9]
    hidden = hidden.double().numpy()
    assert is_within(hidden.mean(), rate, hidden.size)
    for position in range(8):
        assert is_within(hidden[:, position].mean(), rate, len(hidden))
    # How many of a text's eight tokens are hidden is binomial.
    untouched = (1 - rate) ** 8
    assert is_within((hidden.sum(axis=1) == 0).mean(), untouched, len(hidden))
    for one, other in itertools.combinations(range(8), 2):
        both = (hidden[:, one] * hidden[:, other]).mean()
        assert is_within(both, rate**2, len(hidden))


def test_masks_of_other_texts_seeds_and_draws_are_independent():
    n, rate = 20_000, 0.3
    keys, real = keys_of(f"text {i}" for i in range(n)), real_of([8] * n, 10)
    masks = [
        hide_tokens(real, keys, rate, seed, draw)[:, 1:9].double().numpy()
        for seed, draw in [(0, 0), (1, 0), (2, 0), (0, 1), (0, 2), (1, 1), (2**62, 0)]
    ]
    for one, other in itertools.combinations(masks, 2):
        assert is_within((one * other).mean(), rate**2, one.size)
    neighbours = masks[0][:-1] * masks[0][1:]
    assert is_within(neighbours.mean(), rate**2, neighbours.size)
    shifted = masks[0][:, :-1] * masks[1][:, 1:]
    assert is_within(shifted.mean(), rate**2, shifted.size)


def test_the_mask_of_a_text_is_that_of_splitmix64_written_out():
    """So that stored features are found right by any machine and any version."""

    def scramble(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    digest, seed, draw, step = bytes(range(100, 116)), 7, 3, 0x9E3779B97F4A7C15
    stream = 0
    words = [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]
    for word in (*words, seed, draw):
        stream = scramble(((stream ^ word) + step) % 2**64)
    uniform = [
        (scramble((stream + k * step) % 2**64) >> 11) / 2**53 for k in range(1, 65)
    ]
    real = torch.ones(1, 64, dtype=torch.bool)
    for rate in RATES:
        hidden = hide_tokens(real, text_keys([digest]), rate, seed, draw)
        assert hidden[0].tolist() == [u < rate for u in uniform]


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    padding=st.integers(0, 40),
    seed=st.integers(0, 2**32 - 1),
    draw=st.integers(0, 9),
    data=st.data(),
)
def test_masks_are_nested_and_blind_to_padding_order_and_company(
    lengths, padding, seed, draw, data
):
    keys = keys_of(str(length) for length in lengths)
    real = real_of(lengths, 32)
    masks = [hide_tokens(real, keys, r, seed, draw) for r in (0, *RATES, 1)]
    assert not masks[0].any()
    assert torch.equal(masks[-1], real)
    for smaller, larger in itertools.pairwise(masks):
        assert not (smaller & ~larger).any()
    order = data.draw(st.permutations(range(len(lengths))))
    padded = torch.nn.functional.pad(real, (0, padding))[order]
    other = hide_tokens(padded, keys[order], 0.3, seed, draw)
    assert torch.equal(other[:, :32], masks[4][order])
    assert not other[:, 32:].any()
    alone = hide_tokens(real[:1], keys[:1], 0.3, seed, draw)
    assert torch.equal(alone, masks[4][:1])
    # A longer text that was cut hides of what is left what it hid before.
    cut = hide_tokens(real[:, :10], keys, 0.3, seed, draw)
    assert torch.equal(cut, masks[4][:, :10])


def test_tokens_without_keys_are_refused_where_something_would_be_hidden():
    real = torch.ones(2, 5, dtype=torch.bool)
    assert not hide_tokens(real, None, 0.0, 0, 0).any()
    with pytest.raises(ValueError, match="tokens without keys cannot be masked"):
        hide_tokens(real, None, 0.1, 0, 0)


def test_rows_of_tokens_keep_their_keys():
    keys = keys_of(["a", "b", "c"])
    attention = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 1, 0]])
    tokens = Tokens(attention, attention, attention.bool(), keys=keys)
    assert np.array_equal(tokens[1:].keys, keys[1:])
    assert np.array_equal(tokens[np.array([2, 0])].keys, keys[[2, 0]])
    for rows, part in tokens.by_length():
        assert np.array_equal(part.keys, keys[rows.numpy()])
    tokens.keys = None
    assert tokens[1:].keys is None


class Recorder:
    """Stands before a backbone's ``run`` and keeps what it is given."""

    def __init__(self, backbone, monkeypatch):
        self.ids = []
        run = backbone.run

        def recorded(tokens, timestep, prompt):
            self.ids += [row[row != 0].tolist() for row in tokens.ids]
            return run(tokens, timestep, prompt)

        monkeypatch.setattr(backbone, "run", recorded)


@pytest.fixture(scope="module")
def tiny():
    source, _ = locate_backbone("mdlm-tiny")
    return load_backbone(source, device="cpu", dtype=torch.float32)


def masked_ids(tiny, monkeypatch, texts, timestep, *, max_length=128, seed=0, draw=0):
    """Return the token ids that enter the model, text by text."""
    with monkeypatch.context() as patch:
        seen = Recorder(tiny, patch)
        reader = TextReader(max_length)
        inputs = reader.prepare(tiny, reader.read(texts)).inputs
        plan = Plan((0,), (timestep,), ("mean",), draw + 1, seed)
        forward(tiny, inputs, plan, timestep, draw, [0])
    return seen.ids


def test_captions_are_masked_at_the_rate_that_the_timestep_names(tiny, monkeypatch):
    texts = list(load_openclipart().data["text"].drop_duplicates())
    clean = masked_ids(tiny, monkeypatch, texts, 0)
    counts = np.array([len(ids) - 2 for ids in clean])
    mask = tiny.mask_token_id
    for seed in (0, 1):
        masked = masked_ids(tiny, monkeypatch, texts, 100, seed=seed)
        hidden = np.array([ids.count(mask) for ids in masked])
        assert is_within(hidden.sum() / counts.sum(), 0.1, counts.sum())
        first = np.mean([ids[1] == mask for ids in masked])
        assert is_within(first, 0.1, len(texts))
        same = np.mean([a == b for a, b in zip(clean, masked, strict=True)])
        assert abs(same - np.mean(0.9**counts)) < 0.03


def test_a_text_has_one_mask_whatever_its_place_its_company_and_the_length_allowed(
    tiny, monkeypatch
):
    long = " ".join(["a red apple and two small birds"] * 4)
    texts = [long, "a red apple", long, "two birds"]
    masked = masked_ids(tiny, monkeypatch, texts, 300)
    assert masked[0] == masked[2]
    assert masked_ids(tiny, monkeypatch, texts[::-1], 300) == masked[::-1]
    assert masked_ids(tiny, monkeypatch, [long], 300) == masked[:1]
    (cut,) = masked_ids(tiny, monkeypatch, [long], 300, max_length=12)
    assert cut[:-1] == masked[0][:11]
    assert masked_ids(tiny, monkeypatch, texts, 300, seed=1) != masked
    assert masked_ids(tiny, monkeypatch, texts, 300, draw=1) != masked


def test_texts_of_one_length_hide_other_places():
    words = "two three four five six seven eight nine ten"
    texts = [f"{word} {words}" for word in words.split()]
    at = {"block": 0, "timestep": 500}
    features = TextDiffusionFeatureTransformer(**at).fit_transform(texts)
    assert len(np.unique(np.asarray(features).round(3), axis=0)) == len(texts)
    # Only texts that are equal have one mask, and equal features.
    same = TextDiffusionFeatureTransformer(**at).fit_transform([words, "a", words])
    np.testing.assert_array_equal(same[0], same[2])
