"""Batches: pictures and maps move alike, texts are packed, words hidden whole."""

import numpy as np
import pytest
import torch
from helpers.pretraining_runs import SMALL_DIT
from transformers import BertModel

from sklearn_difffeat.pretraining.image import AlignedDiT
from sklearn_difffeat.pretraining.image import build_model as build_dit
from sklearn_difffeat.pretraining.pictures import (
    Pictures,
    crop,
    draw_crops,
    paste,
    vary_colour,
)
from sklearn_difffeat.pretraining.text import (
    ALIGNED,
    LENGTH,
    CleanEmbeddings,
    alignment,
    draw_rates,
)
from sklearn_difffeat.pretraining.text_model import build_model, read_tokenizer
from sklearn_difffeat.pretraining.texts import ROW_TOKENS, Texts, hide_words


def test_each_token_is_aligned_with_the_map_where_its_pixels_come_from(tmp_path):
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(36, 3, 4, 4, generator=random)
    smooth = torch.nn.functional.interpolate(coarse, size=96, mode="bicubic")
    smooth = (smooth.clamp(0, 1) * 255).round()
    pixels = smooth.permute(0, 2, 3, 1).byte().numpy()
    np.savez(
        tmp_path / "images.npz",
        drawings=pixels[:24],
        drawing_source=np.arange(24) % 2,
        photos=pixels[24:, ::3, ::3],
    )
    maps = torch.nn.functional.avg_pool2d(smooth / 127.5 - 1, 12).half().numpy()
    np.save(tmp_path / "drawings-maps.npy", maps[:24])
    np.save(tmp_path / "photos-maps.npy", maps[24:])
    # Crops, flips and pasted rectangles move both alike.
    shown, places = Pictures(tmp_path, targets=True).batch(20, random)
    tokens = torch.nn.functional.avg_pool2d(shown, 8)
    for token, target in zip(tokens, places, strict=True):
        pair = torch.stack([token.flatten(), target.flatten()])
        # Contrast and colours alone are not in the map.
        assert torch.corrcoef(pair)[0, 1] > 0.9


def test_half_the_pictures_get_a_rectangle_of_tokens_of_the_one_before():
    places = torch.arange(64.0)[:, None, None, None].repeat(1, 1, 8, 8)
    pixels = places.repeat_interleave(4, 2).repeat_interleave(4, 3)
    paste(pixels, places, torch.Generator().manual_seed(0))
    # The pixels of a token come from where its target comes from.
    torch.testing.assert_close(pixels[:, :, ::4, ::4], places)
    torch.testing.assert_close(pixels[:, :, 3::4, 3::4], places)
    before = (torch.arange(64.0) - 1) % 64
    pasted = places == before[:, None, None, None]
    assert (pasted | (places == torch.arange(64.0)[:, None, None, None])).all()
    counts = pasted.sum((1, 2, 3))
    assert 20 < (counts > 0).sum() < 44
    assert counts[counts > 0].min() >= 4 and counts.max() <= 36


def test_crops_keep_shape_and_stay_within_the_picture():
    crops = draw_crops(64, torch.Generator().manual_seed(0))
    out = crop(torch.rand(64, 3, 96, 96), crops, 32)
    assert out.shape == (64, 3, 32, 32)
    corners = crops[:, :, :2].abs().sum(2) + crops[:, :, 2].abs()
    assert corners.max() <= 1 + 1e-6
    assert (crops[:, 0, 0] < 0).any() and (crops[:, 0, 0] > 0).any()


def test_a_crop_moves_picture_and_map_alike():
    # A map of the positions themselves, at the resolution of picture and of tokens.
    def positions(side):
        ticks = (torch.arange(side) + 0.5) / side
        return torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"))

    crops = draw_crops(16, torch.Generator().manual_seed(0))
    fine = crop(positions(96).expand(16, -1, -1, -1), crops, 64)
    coarse = crop(positions(8).expand(16, -1, -1, -1), crops, 8)
    by_token = torch.nn.functional.avg_pool2d(fine, 8)
    # The border of a coarse map is padded with itself, half a token wide.
    torch.testing.assert_close(coarse, by_token, atol=0.05, rtol=0)
    inner = (slice(None), slice(None), slice(2, 6), slice(2, 6))
    torch.testing.assert_close(coarse[inner], by_token[inner], atol=1e-3, rtol=0)


def test_colours_vary_and_white_stays_white():
    pictures = torch.zeros(8, 3, 4, 4)
    pictures[:, :, 0] = 1
    out = vary_colour(pictures, torch.Generator().manual_seed(0))
    assert (out[:, :, 0] == 1).all()
    assert out[:, :, 1:].std() > 0.01 and out.abs().max() <= 1
    assert not torch.equal(out[:, 0], out[:, 1])


def test_noise_free_pictures_stop_at_the_aligned_block():
    aligned = AlignedDiT(build_dit(**SMALL_DIT | {"num_layers": 3}), 5, 2)
    passed = [0, 0, 0]

    def count(number):
        def hook(block, inputs, output):
            passed[number] += len(output)

        return hook

    for number, block in enumerate(aligned.model.transformer_blocks):
        block.register_forward_hook(count(number))
    timestep = torch.tensor([0, 0, 0, 500, 900])
    predicted, pooled, tokens = aligned(torch.rand(5, 3, 64, 64), timestep, 3)
    assert passed == [5, 5, 2]
    assert predicted.shape == (2, 3, 64, 64)
    assert pooled.shape == (5, 5) and tokens.shape == (5, 64, 5)


@pytest.fixture
def packed(corpus):
    tokenizer = read_tokenizer(corpus / "encoder")
    texts = Texts(corpus, tokenizer)
    return texts, texts.batch(6, torch.Generator().manual_seed(0))


def test_packed_rows_hold_whole_texts_one_after_the_other(packed):
    texts, batch = packed
    assert batch.ids.shape == batch.text.shape == (6, ROW_TOKENS)
    found = batch.text[batch.text >= 0]
    assert torch.equal(found, found.sort().values)
    for number, row in enumerate(batch.rows):
        places = batch.text == number
        assert batch.ids[places].tolist() == texts.ids[row].tolist()
        assert batch.position[places].tolist() == list(range(int(places.sum())))
    assert (batch.text >= 0).float().mean() > 0.6


def test_a_packed_text_has_the_features_it_has_alone(packed, corpus):
    texts, batch = packed
    encoder = BertModel.from_pretrained(corpus / "encoder").eval()
    counts = texts.counts(encoder.config.vocab_size)
    clean = CleanEmbeddings(build_model(corpus / "encoder", counts), len(texts.ids))
    real = torch.isin(batch.ids, torch.arange(5), invert=True)
    found = clean(batch, real)
    for number in (0, 3, len(batch.rows) - 1):
        ids = torch.from_numpy(texts.ids[batch.rows[number]])[None]
        states = encoder(ids, output_hidden_states=True).hidden_states
        inner, last = (
            states[round(share * (len(states) - 1))][0, 1:-1].mean(0)
            for share in ALIGNED
        )
        expected = torch.stack([inner, LENGTH * last / last.norm()])
        torch.testing.assert_close(expected, found[:, number], atol=1e-4, rtol=1e-4)


def test_what_is_hidden_asks_less_of_the_alignment():
    targets = torch.ones(2, 2, 3)
    means = torch.zeros(2, 2, 3)
    means[1] = targets[1]
    rates = torch.tensor([0.0, 0.5])
    # One block of two is wrong by its whole length: halves of 1 and 0.5.
    torch.testing.assert_close(
        alignment(means, targets, rates), torch.tensor((0.5 + 0.25) / 2)
    )


def test_a_clean_embedding_is_computed_once(packed, corpus):
    texts, batch = packed
    n_pieces = len(read_tokenizer(corpus / "encoder"))
    model = build_model(corpus / "encoder", texts.counts(n_pieces))
    clean = CleanEmbeddings(model, len(texts.ids))
    real = torch.isin(batch.ids, torch.arange(5), invert=True)
    passes = []
    clean.model.bert.register_forward_pre_hook(
        lambda module, args: passes.append(len(args[0]))
    )
    first = clean(batch, real)
    assert torch.equal(clean(batch, real), first)
    assert passes == [6]
    # Its row alone passes again where one text is new.
    places, counts = batch.rows.unique(return_counts=True)
    clean.known[places[counts == 1][0]] = False
    torch.testing.assert_close(clean(batch, real), first)
    assert passes == [6, 1]


def test_rates_are_spread_evenly_and_some_texts_stay_clean():
    rates = draw_rates(40, 0.25, torch.Generator().manual_seed(0))
    assert rates.shape == (41,) and rates[-1] == 0
    assert (rates == 0).sum() == 11
    spread = rates[rates > 0].sort().values.diff()
    torch.testing.assert_close(spread, torch.full((29,), 0.95 / 30))


def test_words_are_hidden_whole_at_the_rate_of_their_text():
    # Pieces 10 to 19 go on with the word of the piece before.
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 20, (40, 90), generator=random)
    ids[:, 0] = 0
    rate = torch.full(ids.shape, 0.3)
    rate[20:] = 0.9
    continues = torch.arange(20) >= 10
    hidden = hide_words(ids, rate, continues, random)
    inside = continues[ids][:, 1:]
    assert torch.equal(hidden[:, 1:][inside], hidden[:, :-1][inside])
    starts = ~continues[ids]
    assert hidden[:20][starts[:20]].float().mean() == pytest.approx(0.3, abs=0.04)
    assert hidden[20:][starts[20:]].float().mean() == pytest.approx(0.9, abs=0.04)
