"""Batches: drawings come with a partner, texts are packed, words hidden whole."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.pretraining_runs import N_HELD, N_PICTURES, SMALL_DIT, draw, schedule
from transformers import BertModel

from sklearn_difffeat.pretraining.image import Latents
from sklearn_difffeat.pretraining.image import build_model as build_dit
from sklearn_difffeat.pretraining.text import (
    ALIGNED,
    LENGTH,
    CleanEmbeddings,
    alignment,
    draw_rates,
)
from sklearn_difffeat.pretraining.text_model import build_model, read_tokenizer
from sklearn_difffeat.pretraining.texts import ROW_TOKENS, Texts, hide_words

# Padding, [CLS], [SEP] and [MASK] of the embedded tokenizer; an unknown word is one.
SPECIAL = torch.tensor([0, 101, 102, 103])


def test_a_batch_pairs_drawings_of_one_name_and_draws_none_held_out(corpus):
    data = Latents(corpus, N_HELD)
    random = torch.Generator().manual_seed(0)
    maps = ((data.maps.float() - data.mean) / data.std).flatten(1)
    mirrored = ((data.maps.float() - data.mean) / data.std).flip(3).flatten(1)
    clean, other, names = data.batch(400, random)
    plain, flipped = (
        torch.cdist(clean.flatten(1), of).min(1) for of in (maps, mirrored)
    )
    turned = flipped.values < plain.values
    assert torch.minimum(plain.values, flipped.values).max() < 0.1
    assert 150 < turned.sum() < 250
    row = torch.where(turned, flipped.indices, plain.indices)
    partner = torch.cdist(other, data.pooled).argmin(1)
    assert torch.equal(data.names[row], names)
    assert torch.equal(data.names[partner], names)
    # A photograph, and a drawing alone of its name, is its own partner.
    named = names >= 0
    assert torch.equal(partner[~named], row[~named]) and (~named).any()
    assert (partner[named] != row[named]).float().mean() > 0.9
    held = [f"{i + 1:016x}" for i in range(N_HELD)]
    assert not np.isin([int(one, 16) for one in held], data.digests).any()


def test_a_batch_of_photographs_alone_has_finite_losses(corpus, tmp_path):
    folder = tmp_path / "corpus"
    shutil.copytree(corpus, folder)
    names = [["photographs", ""]] * N_PICTURES
    (folder / "names.json").write_text(json.dumps(names))
    draw(folder, tmp_path / "run", schedule(10))
    log = json.loads((tmp_path / "run" / "log.jsonl").read_text())
    assert log["name"] == 0 and np.isfinite(log["loss"])


def test_a_new_dit_predicts_zero_and_its_blocks_are_near_the_identity():
    model = build_dit(**SMALL_DIT).eval()
    caught = []
    for module in (model.pos_embed, *model.transformer_blocks):
        module.register_forward_hook(lambda *call: caught.append(call[-1]))
    steps = torch.tensor([10])
    output = model(torch.randn(1, 20, 4, 4), steps, torch.ones_like(steps)).sample
    assert not output.any()
    first, last = caught[0].flatten(), caught[-1].flatten()
    assert torch.cosine_similarity(first, last, dim=0) > 0.9


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
    real = torch.isin(batch.ids, SPECIAL, invert=True)
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
    real = torch.isin(batch.ids, SPECIAL, invert=True)
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
