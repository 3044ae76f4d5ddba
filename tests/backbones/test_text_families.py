"""One contract for every text family, on small checkpoints in the hub's layout."""

import shutil

import numpy as np
import pytest
import torch
from conftest import word_tokenizer
from helpers.text_checkpoints import (
    BY_BLOCKS,
    FAMILIES,
    MASK,
    REMOTE,
    TEXTS,
    blocks_of,
    plain_tokenizer,
    save,
    transformer_of,
)

from sklearn_difffeat import TextDiffusionFeatureTransformer
from sklearn_difffeat.backbones import load_backbone, locate_backbone
from sklearn_difffeat.backbones._noise import hide_tokens
from sklearn_difffeat.text import TextReader

# Dream's code sets what newer versions of transformers name otherwise.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*rope_scaling:FutureWarning"),
    pytest.mark.usefixtures("remote_code"),
]


def backbone_of(folder, dtype=torch.float32):
    source, _ = locate_backbone(folder, trust_remote_code=True)
    return load_backbone(source, device="cpu", dtype=dtype)


def tokens_of(backbone, text):
    """Return the tokens of one text with the key that its mask is drawn by."""
    reader = TextReader(24)
    return reader.prepare(backbone, reader.read([text])).inputs


def mask_of_training(length, size=4):
    """Masks of BD3-LM: own block, unmasked past, and the unmasked text by blocks."""
    mask = torch.zeros(2 * length, 2 * length, dtype=torch.bool)
    for i in range(length):
        for j in range(length):
            mask[i, j] = i // size == j // size
            mask[i, length + j] = i // size > j // size
            mask[length + i, length + j] = i // size >= j // size
    return mask


def plain_states(family, model, tokens, timestep, mask_token):
    """Run the model's own forward on one text and catch what each block returns."""
    caught = []

    def catch(module, args, output):
        caught.append(output[0] if isinstance(output, tuple) else output)

    hidden = hide_tokens(tokens.real, tokens.keys, timestep / 1000, 0, 0)
    ids = tokens.ids.masked_fill(hidden, mask_token)
    handles = [block.register_forward_hook(catch) for block in blocks_of(family, model)]
    with torch.no_grad():
        if family in BY_BLOCKS:
            length = ids.shape[1]
            mask = mask_of_training(length)
            both = torch.cat([ids, tokens.ids], dim=1)
            if family == "bd3lm":
                model.backbone.mask, model.backbone.n = mask, length
                model(both, torch.zeros(1), False)
            else:
                if family == "llada2_moe":
                    mask = mask.float().log()
                positions = torch.arange(length).repeat(2)[None]
                model(both, mask[None, None], positions)
            caught = [states[:, :length] for states in caught]
        elif family == "mdlm":
            sigma = torch.full((1,), -np.log1p(-timestep / 1000))
            model(ids, sigma.float(), False, True)
        elif family in ("llada", "lladamoe", "dream"):
            model(ids, use_cache=False)
        else:
            model(ids)
    for handle in handles:
        handle.remove()
    return torch.stack(caught)[:, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_features_equal_those_of_a_plain_forward_with_hooks(family, text_checkpoints):
    folder, model = text_checkpoints(family)
    transformer = transformer_of(folder, block=[0, 1, 2, 3], timestep=[0, 400])
    features = transformer.fit_transform(TEXTS)
    assert features.shape == (4, 4 * 2 * 16)
    backbone = backbone_of(folder)
    expected_mask = MASK if family in REMOTE else backbone.tokenizer.mask_token_id
    assert backbone.mask_token_id == expected_mask
    for text, row in zip(TEXTS, features.reshape(4, 4, 2, 16), strict=True):
        tokens = tokens_of(backbone, text)
        assert tokens.real.sum() == len(text.split())
        for column, timestep in enumerate((0, 400)):
            states = plain_states(
                family, model, tokens, timestep, backbone.mask_token_id
            )
            expected = states[:, tokens.real[0]].mean(1).numpy()
            np.testing.assert_allclose(row[:, column], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_that_stops_early_gives_what_a_full_one_does(family, text_checkpoints):
    folder, _ = text_checkpoints(family)
    whole = transformer_of(folder, block=[1, 3], timestep=300).fit_transform(TEXTS)
    backbone = backbone_of(folder)
    ran = []
    handle = backbone.stages[2].register_forward_hook(lambda *_: ran.append(2))
    early = transformer_of(folder, block=1, timestep=300).fit_transform(TEXTS)
    handle.remove()
    assert not ran
    np.testing.assert_allclose(early, whole[:, :16], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_does_not_depend_on_its_batch(family, text_checkpoints):
    folder, _ = text_checkpoints(family)
    together = transformer_of(folder, timestep=300, batch_size=4).fit(TEXTS)
    alone = transformer_of(folder, timestep=300, batch_size=1).fit(TEXTS)
    features = together.transform(TEXTS)
    np.testing.assert_allclose(features, alone.transform(TEXTS), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        features[::-1], together.transform(TEXTS[::-1]), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_timesteps_and_lengths_that_do_not_exist_are_errors(
    family, text_checkpoints
):
    folder, _ = text_checkpoints(family)
    for options, message in (
        ({"block": 4}, "block=4 is outside blocks 0 .token embeddings. to 3"),
        ({"timestep": 1000}, "timestep=1000 is outside timesteps 0"),
        ({"max_length": 40}, "max_length=40 exceeds the .* positions"),
    ):
        with pytest.raises(ValueError, match=message):
            transformer_of(folder, **options).fit(TEXTS)


@pytest.mark.parametrize("family", FAMILIES)
def test_empty_texts_give_finite_features_whatever_their_company(
    family, text_checkpoints
):
    transformer = transformer_of(text_checkpoints(family)[0]).fit(TEXTS)
    features = transformer.transform(["", "a red bird"])
    assert np.isfinite(features).all()
    np.testing.assert_allclose(
        transformer.transform([""])[0], features[0], rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_long_texts_are_cut_and_counted(family, text_checkpoints):
    transformer = transformer_of(text_checkpoints(family)[0], max_length=6).fit(TEXTS)
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than the 6 tokens"):
        transformer.transform(["a red bird", "a red bird " * 5])
    fitting = " ".join(["bird"] * (6 if family in REMOTE else 4))
    transformer.transform([fitting])


@pytest.mark.parametrize("family", FAMILIES)
def test_one_long_text_changes_nothing_for_the_others(family, text_checkpoints):
    transformer = transformer_of(text_checkpoints(family)[0], timestep=300).fit(TEXTS)
    long = "a small red bird and the blue boat " * 20_000
    with pytest.warns(UserWarning, match="2 of 6 texts are longer than"):
        together = transformer.transform([*TEXTS[:2], long, *TEXTS[2:], long])
    alone = transformer.transform(TEXTS)
    np.testing.assert_allclose(together[[0, 1, 3, 4]], alone, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(together[2], together[5])


@pytest.mark.parametrize("family", FAMILIES)
def test_control_tokens_in_a_text_hide_and_end_nothing(family, text_checkpoints):
    transformer = transformer_of(text_checkpoints(family)[0], block=[0, 3]).fit(TEXTS)
    written = "[MASK] [SEP] [CLS] [PAD] <mask> </s> <|mdm_mask|>"
    folder, _ = text_checkpoints(family)
    backbone = backbone_of(folder)
    tokens = backbone.tokenize([f"a {written} red", written, ""], 24)
    control = {backbone.mask_token_id, *backbone.tokenizer.all_special_ids}
    control -= {backbone.tokenizer.unk_token_id}
    assert not control & set(tokens.ids[tokens.real].tolist())
    features = transformer.transform([f"a {written} red", written, "a red"])
    assert np.isfinite(features).all()


def test_a_time_conditioned_mdlm_is_told_the_noise_level(tmp_path):
    model = save("mdlm", tmp_path, time_conditioning=True)
    transformer = transformer_of(tmp_path, timestep=400)
    features = transformer.fit_transform(["a red bird"])
    backbone = backbone_of(tmp_path)
    tokens = tokens_of(backbone, "a red bird")
    told = plain_states("mdlm", model, tokens, 400, MASK)[3].mean(0)
    np.testing.assert_allclose(features[0], told, rtol=1e-4, atol=1e-6)
    model.config.time_conditioning = False
    untold = plain_states("mdlm", model, tokens, 400, MASK)[3].mean(0)
    assert np.abs(features[0] - untold.numpy()).max() > 1e-3


def test_dreams_rotary_embedding_is_the_unscaled_one(text_checkpoints):
    backbone = backbone_of(text_checkpoints("dream")[0], torch.bfloat16)
    found = backbone.model.model.rotary_emb.inv_freq
    expected = 10000.0 ** -(torch.arange(0, 8, 2) / 8)
    torch.testing.assert_close(found, expected)
    assert backbone.dtype == torch.bfloat16


def test_mdlm_in_half_precision_is_an_error_that_says_why(text_checkpoints):
    transformer = TextDiffusionFeatureTransformer(
        text_checkpoints("mdlm")[0], trust_remote_code=True, dtype="bfloat16"
    )
    with pytest.raises(ValueError, match="computes in float32; use dtype='float32'"):
        transformer.fit_transform(TEXTS)


def test_mdlm_folder_without_tokenizer_names_the_one_to_add(text_checkpoints, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(text_checkpoints("mdlm")[0], folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match="save that of 'openai-community/gpt2'"):
        transformer_of(folder).fit(TEXTS).transform(TEXTS)


def test_mdlm_from_the_hub_takes_the_pinned_tokenizer_of_gpt2(
    text_checkpoints, tmp_path, monkeypatch
):
    from helpers.folders import cached

    from sklearn_difffeat.backbones.mdlm import MDLMBackbone

    folder, _ = text_checkpoints("mdlm")
    plain = tmp_path / "mdlm"
    shutil.copytree(folder, plain, ignore=shutil.ignore_patterns("tokenizer*"))
    cache = tmp_path / "hub"
    cached(plain, cache, "mdlm")
    repository, commit = MDLMBackbone.tokenizer_source
    vocabulary = cache / f"models--{repository.replace('/', '--')}/snapshots/{commit}"
    plain_tokenizer().save_pretrained(vocabulary)
    (vocabulary / "config.json").write_text('{"model_type": "gpt2"}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = transformer_of("someone/mdlm").fit_transform(TEXTS)
    expected = transformer_of(folder).fit_transform(TEXTS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["Albert", "BigBird"])
def test_other_masked_language_models_are_read_or_refused_by_name(kind, tmp_path):
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "vocab_size": 40, "pad_token_id": 0}
    config = getattr(transformers, f"{kind}Config")(
        **sizes, embedding_size=16, max_position_embeddings=34
    )
    model = getattr(transformers, f"{kind}ForMaskedLM")(config)
    model.save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    transformer = TextDiffusionFeatureTransformer(tmp_path, dtype="float32")
    if kind == "BigBird":
        assert np.isfinite(transformer.fit_transform(TEXTS)).all()
        return
    # All of ALBERT's blocks are one.
    message = "is a AlbertForMaskedLM, whose blocks do not run one after another"
    with pytest.raises(ValueError, match=message):
        transformer.fit_transform(TEXTS)
