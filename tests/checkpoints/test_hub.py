"""Hub ids: what is downloaded, what is cached, and what goes wrong on the way."""

import json
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.fake_hub import Hub, serving
from helpers.folders import PICTURES, cached
from helpers.image_checkpoints import save_pipeline

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    describe_backbone,
    release_backbones,
)
from sklearn_difffeat.checkpoints._hub import file_sizes

TEXTS = ["a red bird"]


@pytest.fixture(autouse=True)
def nothing_remembered():
    """Forget what is known of other tests' commits, which have the same name."""
    from sklearn_difffeat.backbones import _registry

    _registry._describe.cache_clear()
    _registry._check_weights_once.cache_clear()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    release_backbones()
    with serving(monkeypatch, tmp_path / "cache") as hub:
        yield hub
    release_backbones()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A cache without a hub behind it."""
    folder = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


def downloads(hub):
    return {path.rpartition("/")[2] for method, path in hub.requests if method == "GET"}


def test_a_model_is_described_by_small_files_and_the_hubs_listing(hub, dit_folder):
    hub.add("someone/dit", dit_folder)
    info = describe_backbone("someone/dit")
    assert info.revision == hub.commit
    files = [*dit_folder.rglob("*.safetensors")]
    assert info.size_mb == sum(path.stat().st_size for path in files) / 1e6
    assert not any(file.endswith(".safetensors") for file in downloads(hub))


@pytest.mark.parametrize("family", ["sd3", "sd1.5"])
def test_all_parts_of_a_prompted_model_are_downloaded_once(hub, family, tmp_path):
    folder = tmp_path / "model"
    save_pipeline(family, folder)
    expected = ImageDiffusionFeatureTransformer(folder).fit_transform(PICTURES)
    hub.add("someone/pipeline", folder)
    transformer = ImageDiffusionFeatureTransformer("someone/pipeline").fit(PICTURES)
    assert not any(file.endswith((".safetensors", ".bin")) for file in downloads(hub))
    np.testing.assert_allclose(transformer.transform(PICTURES), expected, rtol=1e-5)
    release_backbones()
    hub.requests.clear()
    transformer.transform(PICTURES)
    assert not hub.requests


def test_a_model_is_downloaded_once_and_then_needs_no_network(
    hub, bert_folder, monkeypatch
):
    hub.add("someone/bert", bert_folder)
    expected = TextDiffusionFeatureTransformer(bert_folder).fit_transform(TEXTS)
    transformer = TextDiffusionFeatureTransformer("someone/bert").fit(TEXTS)
    assert transformer.revision_ == hub.commit
    assert "model.safetensors" not in downloads(hub)
    np.testing.assert_allclose(transformer.transform(TEXTS), expected, rtol=1e-5)
    release_backbones()
    hub.requests.clear()
    fitted = pickle.loads(pickle.dumps(transformer))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    np.testing.assert_allclose(fitted.transform(TEXTS), expected, rtol=1e-5)
    np.testing.assert_allclose(
        TextDiffusionFeatureTransformer("someone/bert").fit_transform(TEXTS),
        expected,
        rtol=1e-5,
    )
    assert not hub.requests


def test_a_fitted_model_in_the_cache_does_not_wait_for_a_hub_that_is_gone(
    hub, bert_folder
):
    hub.add("someone/bert", bert_folder)
    transformer = TextDiffusionFeatureTransformer("someone/bert").fit(TEXTS)
    transformer.transform(TEXTS)
    release_backbones()
    hub.requests.clear()
    transformer.transform(TEXTS)
    assert not hub.requests


def test_local_files_only_asks_no_hub(hub, bert_folder):
    hub.add("someone/bert", bert_folder)
    with pytest.raises(OSError, match="is not in the local cache"):
        describe_backbone("someone/bert", local_files_only=True)
    assert not hub.requests
    TextDiffusionFeatureTransformer("someone/bert").fit(TEXTS)
    hub.requests.clear()
    local = TextDiffusionFeatureTransformer("someone/bert", local_files_only=True)
    with pytest.raises(OSError, match="is only half downloaded"):
        local.fit(TEXTS)
    assert not hub.requests
    TextDiffusionFeatureTransformer("someone/bert").fit_transform(TEXTS)
    release_backbones()
    hub.requests.clear()
    local.fit_transform(TEXTS)
    assert not hub.requests


def test_size_guessed_too_small_is_counted_after_the_download(
    hub, bert_folder, monkeypatch
):
    from sklearn_difffeat.checkpoints import _memory

    hub.add("someone/bert", bert_folder)
    hub.sizes["model.safetensors"] = 4000
    monkeypatch.setattr(_memory, "free_memory", lambda: 10_000)
    with pytest.raises(MemoryError, match="of main memory are free"):
        TextDiffusionFeatureTransformer("someone/bert").fit_transform(TEXTS)
    assert "model.safetensors" in downloads(hub)


def test_downloads_show_progress_and_reading_from_disk_does_not(
    hub, bert_folder, dit_folder, capfd, monkeypatch
):
    from huggingface_hub.utils import enable_progress_bars

    enable_progress_bars()
    # Bars are shown on a terminal only, unless this is set.
    monkeypatch.setenv("TQDM_POSITION", "-1")
    hub.add("someone/bert", bert_folder)
    transformer = TextDiffusionFeatureTransformer("someone/bert").fit(TEXTS)
    transformer.transform(TEXTS)
    assert "model.safetensors" in capfd.readouterr().err
    release_backbones()
    transformer.transform(TEXTS)
    ImageDiffusionFeatureTransformer(dit_folder).fit_transform(PICTURES)
    assert "%" not in capfd.readouterr().err


def test_old_weights_are_not_sent_to_the_hub_for_conversion(hub, bert_folder, tmp_path):
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "bert"
    shutil.copytree(bert_folder, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    hub.add("someone/bert", folder)
    found = TextDiffusionFeatureTransformer("someone/bert").fit_transform(TEXTS)
    expected = TextDiffusionFeatureTransformer(bert_folder).fit_transform(TEXTS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert "pytorch_model.bin" in downloads(hub)
    assert not any("conversion" in one.name for one in threading.enumerate())
    assert not any("discussions" in path for _, path in hub.requests)


def test_weights_that_do_not_fit_are_refused_before_the_download(hub, bert_folder):
    hub.add("someone/bert", bert_folder)
    hub.sizes["model.safetensors"] = 10**15
    transformer = TextDiffusionFeatureTransformer("someone/bert").fit(TEXTS)
    with pytest.raises(MemoryError, match=r"takes 1e\+06 GB in float32 but only"):
        transformer.transform(TEXTS)
    assert "model.safetensors" not in downloads(hub)


def test_a_gated_or_unknown_repository_is_an_error_that_says_which(hub, bert_folder):
    hub.add("someone/bert", bert_folder)
    hub.gated.add("someone/bert")
    with pytest.raises(ValueError, match="is gated on the hub; accept its terms"):
        TextDiffusionFeatureTransformer("someone/bert").fit(TEXTS)
    with pytest.raises(ValueError, match=r"else' .revision main. was not found"):
        describe_backbone("someone/else")


def test_a_repository_that_is_no_model_is_an_error(hub, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "README.md").write_text("Nothing here.")
    hub.add("someone/data", folder)
    with pytest.raises(ValueError, match=r"holds neither model_index.json nor config"):
        describe_backbone("someone/data")


def test_a_download_that_breaks_off_is_named(hub, bert_folder, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(bert_folder, folder)
    hub.add("someone/bert", folder)
    transformer = TextDiffusionFeatureTransformer("someone/bert").fit(TEXTS)
    hub.folders.clear()
    with pytest.raises((OSError, ValueError), match="backbone='someone/bert'"):
        transformer.transform(TEXTS)


def test_a_cached_model_whose_weights_are_missing_is_half_downloaded(
    cache, bert_folder, dit_folder
):
    cached(bert_folder, cache, "bert")
    cached(dit_folder, cache, "dit")
    snapshots = cache.glob("models--*/snapshots/*")
    for snapshot in snapshots:
        for weights in (*snapshot.glob("*.safetensors"), *snapshot.glob("vae/*.saf*")):
            weights.unlink()
    assert describe_backbone("someone/bert").size_mb is None
    with pytest.raises(OSError, match="only half downloaded: 1 of its 1 weight files"):
        TextDiffusionFeatureTransformer("someone/bert").fit(TEXTS)
    with pytest.raises(OSError, match=r"1 of its 2 weight files .*'vae/diffusion"):
        ImageDiffusionFeatureTransformer("someone/dit").fit(PICTURES)


def test_a_cache_that_holds_only_a_broken_download_is_named(cache):
    blobs = cache / "models--someone--bert" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc.incomplete").write_bytes(b"")
    with pytest.raises(OSError, match="only partly in the local cache"):
        describe_backbone("someone/bert")


@pytest.mark.parametrize("how", ["shard", "pointer", "nothing"])
def test_a_folder_with_missing_weights_is_half_downloaded(how, bert_folder, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(bert_folder, folder)
    weights = folder / "model.safetensors"
    if how == "shard":
        weights.rename(folder / "model-00001-of-00002.safetensors")
        shards = {"a": weights.name, "b": "model-00002-of-00002.safetensors"}
        shards["a"] = "model-00001-of-00002.safetensors"
        index = {"metadata": {"total_size": 9}, "weight_map": shards}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif how == "pointer":
        weights.write_text("version https://git-lfs.github.com/spec/v1\nsize 1\n")
    else:
        weights.unlink()
    with pytest.raises(OSError, match="is only half downloaded: 1 of its") as error:
        TextDiffusionFeatureTransformer(folder).fit(TEXTS)
    assert ("00002-of-00002" in str(error.value)) == (how == "shard")


def test_a_model_in_shards_is_read_whole(bert_folder, tmp_path):
    from conftest import build_masked_lm, word_tokenizer

    build_masked_lm("bert").save_pretrained(tmp_path, max_shard_size="10kB")
    word_tokenizer().save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    sharded, whole = describe_backbone(tmp_path), describe_backbone(bert_folder)
    assert sharded.size_mb == pytest.approx(whole.size_mb, rel=0.5)
    np.testing.assert_allclose(
        TextDiffusionFeatureTransformer(tmp_path).fit_transform(TEXTS),
        TextDiffusionFeatureTransformer(bert_folder).fit_transform(TEXTS),
        rtol=1e-5,
    )


def test_threads_are_told_the_same_sizes_of_files(hub, bert_folder):
    hub.add("someone/bert", bert_folder)
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(file_sizes, "someone/bert", hub.commit, ask=True)
            for _ in range(8)
        ]
    (size,) = {one.result()["model.safetensors"] for one in asked}
    assert size == (bert_folder / "model.safetensors").stat().st_size


def test_a_pinned_revision_is_recorded_and_used(cache, bert_folder):
    cached(bert_folder, cache, "bert")
    transformer = TextDiffusionFeatureTransformer("someone/bert", revision=Hub.commit)
    transformer.fit(TEXTS)
    assert transformer.revision_ == Hub.commit
    assert transformer.backbone_fingerprint_ == f"hub:someone/bert@{Hub.commit}"
    (cache / "models--someone--bert" / "refs" / "main").write_text("f" * 40)
    assert TextDiffusionFeatureTransformer(bert_folder).fit(TEXTS).revision_ is None
    with pytest.raises(OSError, match="cannot be reached"):
        TextDiffusionFeatureTransformer("someone/bert").fit(TEXTS)
    transformer.transform(TEXTS)
