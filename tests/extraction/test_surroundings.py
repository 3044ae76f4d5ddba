"""Features do not depend on what switches of torch surround a call."""

import contextlib
import os
import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    release_backbones,
)
from sklearn_difffeat.backbones._surroundings import plain_torch

TEXTS = ["a red apple", "the boat", "a small green house and a bird"]
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@contextlib.contextmanager
def setting(put, get, value):
    before = get()
    put(value)
    try:
        yield
        assert get() == value
    finally:
        put(before)


@contextlib.contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
        assert torch.get_default_device() == torch.device(name)
    finally:
        torch.set_default_device(None)


def default_dtype(dtype):
    return setting(torch.set_default_dtype, torch.get_default_dtype, dtype)


@contextlib.contextmanager
def newer_switches(value):
    """Set what torch then refuses to tell by its older switches."""
    switches = torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv
    for switch in switches:
        switch.fp32_precision = value
    try:
        yield
        assert [switch.fp32_precision for switch in switches] == [value, value]
    finally:
        for switch in switches:
            switch.fp32_precision = "none"


SURROUNDINGS = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "default device meta": lambda: default_device("meta"),
    "default device cpu": lambda: default_device("cpu"),
    "device meta": lambda: torch.device("meta"),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "default dtype float16": lambda: default_dtype(torch.float16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "gradients": torch.enable_grad,
    "deterministic": lambda: setting(
        torch.use_deterministic_algorithms,
        torch.are_deterministic_algorithms_enabled,
        True,
    ),
    "medium precision": lambda: setting(
        torch.set_float32_matmul_precision,
        torch.get_float32_matmul_precision,
        "medium",
    ),
    "newer switches": lambda: newer_switches("bf16"),
}


@pytest.fixture(scope="module")
def extract(dit_folder, bert_folder, checkpoints):
    """Functions that extract features, from a model's loading on."""
    image = {"image_size": 32, "dtype": "float32", "timestep": 300, "block": [0, 2]}
    transformers = {
        "dit": ImageDiffusionFeatureTransformer(dit_folder, **image),
        "embedded": ImageDiffusionFeatureTransformer(block=[0, 2, 4], timestep=50),
        "text": TextDiffusionFeatureTransformer(bert_folder, timestep=300),
    } | {
        name: ImageDiffusionFeatureTransformer(
            checkpoints(name), prompt=prompt, **image
        )
        for name, prompt in (
            ("pixart-alpha", "a cat"), ("flux-dev", ""), ("sdxl", ""), ("sana", "a"),
            ("lumina2", "a cat"), ("sd3", "a cat"),
        )
    }  # fmt: skip

    def run(name, **changes):
        cells = TEXTS if name == "text" else PICTURES
        return (
            transformers[name]
            .set_params(**{"cache": None} | changes)
            .fit_transform(cells)
        )

    run.names = list(transformers)
    run.plain = {}
    for name in transformers:
        release_backbones()
        run.plain[name] = run(name)
    yield run
    release_backbones()


@pytest.mark.parametrize("surrounding", list(SURROUNDINGS))
def test_features_are_those_of_plain_torch(extract, surrounding):
    for name in extract.names:
        release_backbones()
        for _ in ("loading", "loaded"):
            with SURROUNDINGS[surrounding]():
                found = extract(name)
            np.testing.assert_allclose(
                found, extract.plain[name], rtol=1e-5, atol=1e-6, err_msg=name
            )
        # What was loaded there serves as well where nothing surrounds it.
        found = extract(name)
        np.testing.assert_allclose(found, extract.plain[name], rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    chosen=st.lists(st.sampled_from(sorted(SURROUNDINGS)), unique=True, max_size=4),
    name=st.sampled_from(["dit", "text", "sana"]),
    is_loaded=st.booleans(),
)
def test_features_are_those_of_plain_torch_under_several_at_once(
    extract, chosen, name, is_loaded
):
    if not is_loaded:
        release_backbones()
    # The newer switches make torch refuse to read the older ones.
    if "newer switches" in chosen and "medium precision" in chosen:
        chosen.remove("medium precision")
    devices = [one for one in chosen if "device" in one]
    chosen = [one for one in chosen if one not in devices[1:]]
    with contextlib.ExitStack() as stack:
        for surrounding in chosen:
            stack.enter_context(SURROUNDINGS[surrounding]())
        found = extract(name)
    np.testing.assert_allclose(found, extract.plain[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["dit", "text"])
def test_store_is_filled_with_the_features_of_plain_torch(extract, name, tmp_path):
    release_backbones()
    cache = str(tmp_path / "features.db")
    with torch.autocast("cpu", torch.bfloat16), default_dtype(torch.bfloat16):
        extract(name, cache=cache)
    stored = extract(name, cache=cache)
    np.testing.assert_allclose(stored, extract.plain[name], rtol=1e-5, atol=1e-6)


def test_second_prompt_is_encoded_in_plain_torch(checkpoints):
    options = {"image_size": 32, "dtype": "float32"}

    def features(prompt):
        transformer = ImageDiffusionFeatureTransformer(
            checkpoints("pixart-sigma"), prompt=prompt, **options
        )
        return transformer.fit_transform(PICTURES)

    release_backbones()
    expected = features("a dog")
    release_backbones()
    features("a cat")
    with torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        found = features("a dog")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def switches():
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_float32_matmul_precision(),
        torch.is_autocast_enabled("cpu"),
        torch.backends.mkldnn.matmul.fp32_precision,
        torch.backends.mkldnn.conv.fp32_precision,
        torch.is_grad_enabled(),
    )


def test_switches_are_put_back_after_an_error():
    outside = switches()
    with torch.autocast("cpu"), torch.device("meta"), default_dtype(torch.bfloat16):
        torch.set_float32_matmul_precision("medium")
        torch.backends.mkldnn.conv.fp32_precision = "bf16"
        before = switches()
        with pytest.raises(KeyError), plain_torch(), plain_torch():
            assert switches()[:4] == (
                torch.float32, torch.device("cpu"), "highest", False
            )  # fmt: skip
            assert switches()[4:6] == ("ieee", "ieee")
            raise KeyError
        assert switches() == before
        torch.backends.mkldnn.conv.fp32_precision = "none"
        torch.set_float32_matmul_precision("highest")
        torch.backends.mkldnn.matmul.fp32_precision = "none"
    assert switches()[:4] == outside[:4]


def test_precision_that_comes_from_another_switch_is_put_back_as_it_was():
    torch.backends.fp32_precision = "bf16"
    try:
        with plain_torch():
            assert torch.backends.mkldnn.conv.fp32_precision == "ieee"
        assert torch.backends.mkldnn.conv.fp32_precision == "bf16"
    finally:
        torch.backends.fp32_precision = "none"
    assert torch.backends.mkldnn.conv.fp32_precision == "none"


class Inside(threading.Thread):
    """A thread that stays in plain torch until it is told to leave."""

    def __init__(self, alone=False):
        super().__init__()
        self.alone = alone
        self.entered, self.leave = threading.Event(), threading.Event()
        self.seen = []

    def run(self):
        with plain_torch(alone=self.alone):
            self.entered.set()
            self.leave.wait(60)
            self.seen.append(torch.get_default_dtype())

    def started(self):
        self.start()
        self.entered.wait(60)
        return self

    def stopped(self):
        self.leave.set()
        self.join(60)
        assert not self.is_alive()


def test_threads_compute_together_where_nothing_has_to_be_changed():
    threads = [Inside().started() for _ in range(3)]
    assert all(thread.entered.is_set() for thread in threads)
    with plain_torch(), plain_torch():
        pass
    for thread in threads:
        thread.stopped()


@pytest.mark.parametrize("alone", [False, True])
def test_thread_that_changes_a_switch_of_the_process_is_alone(alone):
    outside = torch.float32 if alone else torch.float64
    torch.set_default_dtype(outside)
    try:
        first = Inside(alone).started()
        second = Inside()
        second.start()
        assert not second.entered.wait(0.2)
        first.stopped()
        assert second.entered.wait(60)
        third = Inside(alone)
        third.start()
        assert not third.entered.wait(0.2)
        second.stopped()
        third.stopped()
        assert first.seen + second.seen + third.seen == [torch.float32] * 3
        assert torch.get_default_dtype() == outside
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_does_not_wait_for_threads_that_it_does_not_have():
    thread = Inside(alone=True).started()
    child = os.fork()
    if not child:
        with plain_torch():
            os._exit(7)
    thread.stopped()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_nothing_is_changed_where_nothing_surrounds():
    before = switches()
    with plain_torch():
        assert switches() == before
        assert not torch.overrides._get_current_function_mode_stack()
    assert switches() == before
