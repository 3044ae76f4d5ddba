"""Loaded models that several threads ask for at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sklearn_difffeat.backbones import (
    _registry,
    load_backbone,
    locate_backbone,
    release_backbones,
)
from sklearn_difffeat.checkpoints import _memory


def load(name):
    source, _ = locate_backbone(name)
    return load_backbone(source, device="cpu", dtype=torch.float32)


@pytest.fixture
def slow_download(monkeypatch):
    """Two events: the weights of ``mdlm-tiny`` are waited for, and they are here."""
    locate_backbone("mdlm-tiny")
    waiting, here = threading.Event(), threading.Event()
    check = _registry.check_weights

    def check_late(source):
        if source.name == "mdlm-tiny":
            waiting.set()
            assert here.wait(120)
        check(source)

    monkeypatch.setattr(_registry, "check_weights", check_late)
    release_backbones()
    yield waiting, here
    here.set()
    release_backbones()


def test_a_loaded_model_is_had_while_another_is_downloaded(slow_download):
    waiting, here = slow_download
    image_model = load("dit-tiny")
    with ThreadPoolExecutor() as pool:
        try:
            text_model = pool.submit(load, "mdlm-tiny")
            assert waiting.wait(60)
            assert pool.submit(load, "dit-tiny").result(60) is image_model
            # Another model is not waited for either, nor is letting go of all.
            assert pool.submit(release_backbones).result(60) == 1
            assert pool.submit(load, "dit-tiny").result(60) is not image_model
            assert not text_model.done()
        finally:
            here.set()
        assert text_model.result(60).info.name == "mdlm-tiny"


def test_threads_that_ask_for_one_model_share_one_load(slow_download, pass_counter):
    waiting, here = slow_download
    with ThreadPoolExecutor(6) as pool:
        try:
            asked = [pool.submit(load, "mdlm-tiny") for _ in range(6)]
            assert waiting.wait(60)
        finally:
            here.set()
        models = {id(one.result(60)) for one in asked}
    assert len(models) == pass_counter["loads"] == 1


def test_a_load_that_fails_is_tried_again_by_the_next_thread(monkeypatch):
    release_backbones()
    source, _ = locate_backbone("mdlm-tiny")
    turns = iter([OSError("the disk is gone")])

    def fail_once(source):
        for error in turns:
            raise error

    monkeypatch.setattr(_registry, "check_weights", fail_once)
    with pytest.raises(OSError, match="disk is gone"):
        load_backbone(source, device="cpu", dtype=torch.float32)
    assert (
        load_backbone(source, device="cpu", dtype=torch.float32).info
        == (locate_backbone("mdlm-tiny")[1])
    )
    release_backbones()


def test_memory_that_another_load_took_meanwhile_is_noticed(monkeypatch, pass_counter):
    free = iter([10**12, 1000])
    monkeypatch.setattr(_memory, "free_memory", lambda: next(free))
    with pytest.raises(MemoryError, match="of main memory are free"):
        load("mdlm-tiny")
    assert pass_counter["loads"] == 0
