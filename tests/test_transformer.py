"""The contract that both transformers share, on real images and texts."""

import io
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import polars
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, cross_validate
from sklearn.pipeline import Pipeline

from sklearn_difffeat import (
    FusionClassifier,
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    make_fusion_pipeline,
    release_backbones,
)

BOTH = pytest.mark.parametrize(
    ("kind", "column"),
    [
        (ImageDiffusionFeatureTransformer, "image"),
        (TextDiffusionFeatureTransformer, "text"),
    ],
    ids=["image", "text"],
)


RARE_LABELS = pytest.mark.filterwarnings("ignore:.*are constant in y")


@BOTH
@pytest.mark.parametrize("timestep", [0, 300])
def test_features_do_not_depend_on_batch_order_or_neighbours(
    kind, column, timestep, clipart
):
    cells = clipart[0][column][:24]
    whole = kind(timestep=timestep).fit_transform(cells)
    small = kind(timestep=timestep, batch_size=5).fit_transform(cells)
    np.testing.assert_allclose(small, whole, rtol=1e-3, atol=1e-5)
    order = np.random.default_rng(0).permutation(24)
    shuffled = kind(timestep=timestep).fit_transform(cells.iloc[order])
    np.testing.assert_allclose(shuffled, whole[order], rtol=1e-3, atol=1e-5)
    alone = kind(timestep=timestep).fit_transform(cells[7:8])
    np.testing.assert_allclose(alone, whole[7:8], rtol=1e-3, atol=1e-5)


@BOTH
def test_output_is_float32_of_the_announced_width_and_names(kind, column, clipart):
    transformer = kind(block=[2, "last"], timestep=[0, 10])
    features = transformer.fit_transform(clipart[0][column][:3])
    assert features.dtype == np.float32
    assert features.shape == (3, transformer.n_features_out_) == (3, 4 * 256)
    names = transformer.get_feature_names_out()
    last = transformer.n_blocks_
    assert names[0] == "b2_t0_0"
    assert names[256] == "b2_t10_0"
    assert names[-1] == f"b{last}_t10_255"
    assert (transformer.block_, transformer.timestep_) == ([2, last], [0, 10])


@BOTH
def test_a_list_of_blocks_and_timesteps_concatenates_single_ones(kind, column, clipart):
    cells = clipart[0][column][:4]
    joint = kind(block=[0, 3], timestep=[0, 200]).fit_transform(cells)
    parts = [
        kind(block=block, timestep=timestep).fit_transform(cells)
        for block in (0, 3)
        for timestep in (0, 200)
    ]
    np.testing.assert_allclose(joint, np.hstack(parts), rtol=1e-4, atol=1e-5)


@BOTH
def test_all_blocks_of_a_timestep_come_from_one_pass(
    kind, column, clipart, pass_counter
):
    cells = clipart[0][column].drop_duplicates()[:10]
    kind(block=[1, 2, 3, 4], timestep=[0, 100], n_draws=3).fit_transform(cells)
    assert pass_counter["rows"] == 10 * (1 + 3)
    assert pass_counter["encoded"] in (0, 10)


@BOTH
def test_early_exit_gives_the_features_of_a_full_pass(kind, column, clipart):
    cells = clipart[0][column][:4]
    early = kind(block=2, timestep=100).fit_transform(cells)
    full = kind(block=[2, "last"], timestep=100).fit_transform(cells)[:, :256]
    np.testing.assert_allclose(early, full, rtol=1e-4, atol=1e-5)


def test_blocks_behind_the_deepest_one_do_not_run(clipart, monkeypatch):
    import torch

    from sklearn_difffeat.backbones import load_backbone, locate_backbone
    from sklearn_difffeat.extraction._devices import native_dtype, usable_device

    transformer = ImageDiffusionFeatureTransformer(block=3).fit(clipart[0]["image"][:2])
    source, _ = locate_backbone("dit-tiny")
    device = usable_device(None)
    dtype = getattr(torch, native_dtype(device))
    backbone = load_backbone(source, device=device, dtype=dtype)
    ran = []
    hooks = [
        stage.register_forward_hook(lambda *call, k=k: ran.append(k))
        for k, stage in enumerate(backbone.stages)
    ]
    transformer.transform(clipart[0]["image"][:2])
    for hook in hooks:
        hook.remove()
    assert max(ran) <= 3


@BOTH
def test_fit_loads_no_weights(kind, column, clipart, pass_counter):
    kind().fit(clipart[0][column])
    assert pass_counter == {"rows": 0, "loads": 0, "encoded": 0}


@BOTH
def test_negative_and_named_blocks_resolve_like_indices(kind, column, clipart):
    cells = clipart[0][column][:2]
    last = kind(block="last").fit(cells)
    assert last.block_ == kind(block=-1).fit(cells).block_ == last.n_blocks_
    assert kind(block=-last.n_blocks_ - 1).fit(cells).block_ == 0
    assert kind(block="middle").fit(cells).block_ == (last.n_blocks_ + 1) // 2
    assert kind(timestep="middle").fit(cells).timestep_ == last.n_timesteps_ // 2


@BOTH
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"block": 99}, "block=99 is outside blocks 0"),
        ({"block": -10}, "block=-10 is outside"),
        ({"block": 1.5}, "block=1.5 is outside"),
        ({"block": []}, "is an empty list"),
        ({"backbone": None}, "'backbone' parameter"),
        ({"block": "deepest"}, "block='deepest' is unknown"),
        ({"block": [2, 2]}, "asks for the same block twice"),
        ({"block": True}, "block=True"),
        ({"timestep": 1000}, "timestep=1000 is outside timesteps 0"),
        ({"timestep": -1}, "timestep=-1 is outside"),
        ({"backbone": "dit-huge"}, "backbone='dit-huge' is unknown"),
        ({"pooling": "median"}, "pooling='median' is unknown"),
        ({"n_draws": 0}, "'n_draws' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"dtype": "int8"}, "'dtype' parameter"),
        ({"missing": "drop"}, "'missing' parameter"),
        ({"random_state": -1}, "'random_state' parameter"),
    ],
)
def test_bad_parameter_is_named_and_leaves_no_partial_state(
    kind, column, parameters, message, clipart
):
    transformer = kind(**parameters)
    with pytest.raises(ValueError, match=message):
        transformer.fit(clipart[0][column][:2])
    assert not [name for name in vars(transformer) if name.endswith("_")]


@BOTH
def test_backbone_of_the_other_modality_is_an_error(kind, column, clipart):
    other = "mdlm-tiny" if column == "image" else "dit-tiny"
    with pytest.raises(ValueError, match="use the transformer for"):
        kind(backbone=other).fit(clipart[0][column][:2])


@BOTH
def test_every_container_gives_the_same_features(kind, column, clipart):
    cells = clipart[0][column][:3].tolist()
    expected = kind().fit_transform(cells)
    objects = np.empty(3, dtype=object)
    objects[:] = cells
    containers = [
        tuple(cells),
        objects,
        objects.reshape(3, 1),
        pd.Series(cells, index=[7, 7, 9]),
        pd.DataFrame({"c": cells}),
        polars.Series(cells),
        polars.DataFrame({"c": cells}),
    ]
    for container in containers:
        found = kind().fit_transform(container)
        np.testing.assert_array_equal(found, expected)


@BOTH
def test_missing_cells_are_an_error_that_names_the_row_or_rows_of_nan(
    kind, column, clipart
):
    cells = clipart[0][column][:5].tolist()
    for absent in (None, float("nan"), np.nan, pd.NA, pd.NaT):
        broken = [*cells[:3], absent, *cells[3:]]
        with pytest.raises(ValueError, match=r"row 3 of X: the cell is missing.*nan"):
            kind().fit(broken)
        features = kind(missing="nan").fit_transform(broken)
        assert np.isnan(features[3]).all()
        np.testing.assert_allclose(
            np.delete(features, 3, axis=0), kind().fit_transform(cells), rtol=1e-4
        )
    assert np.isnan(kind(missing="nan").fit_transform([None, None])).all()


@BOTH
@pytest.mark.parametrize("empty", [[], (), np.array([], dtype=object), pd.Series([])])
def test_empty_input_is_an_error(kind, column, empty):
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        kind().fit(empty)


@BOTH
def test_one_cell_instead_of_a_column_is_an_error(kind, column, clipart):
    with pytest.raises(TypeError, match="wrap it in a list"):
        kind().fit(clipart[0][column][0])
    with pytest.raises(TypeError, match="pass a list, tuple"):
        kind().fit(3)
    with pytest.raises(ValueError, match="2 columns"):
        kind().fit(clipart[0])


@BOTH
def test_transform_before_fit_is_an_error(kind, column, clipart):
    with pytest.raises(NotFittedError):
        kind().transform(clipart[0][column][:2])


@BOTH
def test_clone_keeps_parameters_and_no_state(kind, column, clipart):
    transformer = kind(block=[1, 2], timestep=5).fit(clipart[0][column][:2])
    copy = clone(transformer)
    assert copy.get_params() == transformer.get_params()
    assert not [name for name in vars(copy) if name.endswith("_")]


@BOTH
def test_set_output_gives_a_frame_with_names_and_the_index(kind, column, clipart):
    cells = clipart[0][column][10:13]
    frame = kind().set_output(transform="pandas").fit_transform(cells)
    assert list(frame.index) == list(cells.index)
    assert frame.columns[0].startswith("b")
    from_list = kind().set_output(transform="pandas").fit_transform(cells.tolist())
    np.testing.assert_array_equal(from_list, frame)
    frame = kind().set_output(transform="polars").fit_transform(cells)
    assert frame.shape == (3, 256)


@BOTH
def test_pickle_holds_no_weights_and_gives_the_same_features(kind, column, clipart):
    cells = clipart[0][column][:3]
    transformer = kind().fit(cells)
    expected = transformer.transform(cells)
    content = pickle.dumps(transformer)
    assert len(content) < 100_000
    release_backbones()
    np.testing.assert_array_equal(pickle.loads(content).transform(cells), expected)


@BOTH
def test_random_state_and_draws_change_noisy_features_only(kind, column, clipart):
    cells = clipart[0][column][:3]

    def features(**parameters):
        return kind(**parameters).fit_transform(cells)

    noisy = features(timestep=400)
    np.testing.assert_array_equal(noisy, features(timestep=400))
    assert np.abs(noisy - features(timestep=400, random_state=1)).max() > 1e-3
    assert np.abs(noisy - features(timestep=400, n_draws=2)).max() > 1e-4
    np.testing.assert_array_equal(
        features(timestep=0), features(timestep=0, random_state=1, n_draws=2)
    )


@BOTH
def test_backbone_that_changed_since_fit_is_refused(
    kind, column, clipart, dit_folder, bert_folder, tmp_path
):
    import shutil

    folder = tmp_path / "backbone"
    shutil.copytree(dit_folder if column == "image" else bert_folder, folder)
    cells = clipart[0][column][:2]
    transformer = kind(folder).fit(cells)
    weights = next(folder.rglob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="is not the one this transformer was fitted"):
        transformer.transform(cells)


@BOTH
def test_batch_that_does_not_fit_in_memory_is_halved_not_lost(
    kind, column, clipart, monkeypatch
):
    import torch

    from sklearn_difffeat.extraction import _schedule

    cells = clipart[0][column].drop_duplicates()[:11]
    expected = kind(dtype="float32", timestep=[0, 9]).fit_transform(cells)
    run_pass, sizes = _schedule.run_pass, []

    def starved(backbone, inputs, plan, timestep, *rest):
        sizes.append(len(getattr(inputs, "ids", inputs)))
        if sizes[-1] > 3 and timestep:
            torch.empty(1 << 50)  # what the CPU's allocator says
        return run_pass(backbone, inputs, plan, timestep, *rest)

    monkeypatch.setattr(_schedule, "run_pass", starved)
    transformer = kind(dtype="float32", timestep=[0, 9], batch_size=8)
    found = transformer.fit_transform(cells)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    # The pass that did fit is not run again, and no later batch is as large.
    assert sizes == [8, 8, 4, 2, 2, 4, 2, 2, 3, 3]

    def hopeless(*args):
        raise MemoryError

    monkeypatch.setattr(_schedule, "run_pass", hopeless)
    with pytest.raises(MemoryError, match=r"one row of X does not fit .* rows 0 to"):
        kind().fit_transform(cells)


@BOTH
def test_parameters_changed_after_fit_wait_for_the_next_fit(kind, column, clipart):
    cells = clipart[0][column][:3]
    transformer = kind(block=2).fit(cells)
    expected = transformer.transform(cells)
    transformer.set_params(block=99, pooling="max")
    np.testing.assert_array_equal(transformer.transform(cells), expected)
    with pytest.raises(ValueError, match="block=99"):
        transformer.fit(cells)
    np.testing.assert_array_equal(transformer.transform(cells), expected)


@BOTH
def test_device_that_is_not_there_falls_back_with_a_warning(kind, column, clipart):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    cells = clipart[0][column][:2]
    with pytest.warns(UserWarning, match="device='cuda' is not available here"):
        features = kind(device="cuda").fit_transform(cells)
    np.testing.assert_array_equal(features, kind().fit_transform(cells))
    with pytest.raises(ValueError, match="device='gpu' is no torch device"):
        kind(device="gpu").fit_transform(cells)


@BOTH
def test_a_pass_that_is_interrupted_leaves_the_shared_model_whole(
    kind, column, clipart, monkeypatch
):
    from sklearn_difffeat.backbones.dit import DiTBackbone
    from sklearn_difffeat.backbones.masked_lm import MaskedLMBackbone

    cells = clipart[0][column][:3]
    expected = kind(block=[1, 2]).fit_transform(cells)
    backbone = DiTBackbone if column == "image" else MaskedLMBackbone

    def interrupted(self, *args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backbone, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kind().fit_transform(cells)
    np.testing.assert_array_equal(kind(block=[1, 2]).fit_transform(cells), expected)


@BOTH
def test_threads_share_one_model_and_get_their_own_features(kind, column, clipart):
    cells = clipart[0][column][:4]
    expected = [kind(block=b, timestep=100).fit_transform(cells) for b in range(5)]
    found = joblib.Parallel(n_jobs=3, backend="threading")(
        joblib.delayed(kind(block=b, timestep=100).fit_transform)(cells)
        for b in range(5)
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@BOTH
def test_progress_bar_counts_rows_when_verbose(kind, column, clipart, capsys):
    kind(verbose=True).fit_transform(clipart[0][column][:3])
    assert "3/3" in capsys.readouterr().err
    kind().fit_transform(clipart[0][column][:3])
    assert capsys.readouterr().err == ""


def fused():
    return make_fusion_pipeline(
        ("image", ImageDiffusionFeatureTransformer(timestep=0), "image"),
        ("text", TextDiffusionFeatureTransformer(), "text"),
        classifier=FusionClassifier(C=0.1),
    )


@RARE_LABELS
def test_the_documented_pipeline_fuses_by_column_prefix(clipart):
    X, Y, _ = clipart
    features = ColumnTransformer(
        [
            ("image", ImageDiffusionFeatureTransformer(), "image"),
            ("text", TextDiffusionFeatureTransformer(), "text"),
        ]
    )
    model = Pipeline([("features", features), ("classifier", FusionClassifier())])
    model.fit(X, Y)
    assert list(model["classifier"].modalities_) == ["image", "text"]
    assert model.predict_proba(X).shape == Y.shape
    named = clone(model).set_output(transform="pandas").fit(X, Y)
    assert list(named["classifier"].modalities_) == ["image", "text"]
    np.testing.assert_allclose(
        named.predict_proba(X), model.predict_proba(X), atol=1e-6
    )


@RARE_LABELS
def test_cross_validate_scores_the_fused_pipeline_by_group(clipart):
    X, Y, groups = clipart
    scores = cross_validate(
        fused(), X, Y, groups=groups, cv=GroupKFold(2), error_score="raise"
    )
    assert np.isfinite(scores["test_score"]).all()


SEARCH = """
import sys
import joblib
import numpy as np
from sklearn.model_selection import GridSearchCV

model, X, Y = joblib.load("job.joblib")
grid = {"features__image__block": [2, 4], "features__image__timestep": [0, 100]}
search = GridSearchCV(model, grid, cv=2, n_jobs=int(sys.argv[1]), error_score="raise")
search.fit(X, Y)
fitted = search.best_estimator_["features"].named_transformers_["image"]
assert fitted.block_ == search.best_params_["features__image__block"]
np.save(f"scores{sys.argv[1]}.npy", search.cv_results_["mean_test_score"])
"""


def test_grid_search_over_block_and_timestep_runs_in_two_processes(clipart, tmp_path):
    X, Y, _ = clipart
    joblib.dump((fused(), X, Y), tmp_path / "job.joblib")
    # A process of its own: joblib warns of workers it replaces, in a thread that
    # warnings turned into errors would end.
    for n_jobs in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", SEARCH, n_jobs],
            check=True,
            cwd=tmp_path,
            timeout=240,
        )
    one, two = (np.load(tmp_path / f"scores{n}.npy") for n in "12")
    np.testing.assert_allclose(one, two, atol=1e-6)


@RARE_LABELS
def test_model_dumped_by_joblib_predicts_the_same_in_a_new_process(clipart, tmp_path):
    X, Y, _ = clipart
    model = fused().fit(X, Y)
    joblib.dump(model, tmp_path / "model.joblib")
    X.to_pickle(tmp_path / "X.pickle")
    code = (
        "import joblib, numpy, pandas; "
        "model = joblib.load('model.joblib'); X = pandas.read_pickle('X.pickle'); "
        "numpy.save('p.npy', model.predict_proba(X))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    expected = model.predict_proba(X)
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), expected, atol=1e-6)
    buffer = io.BytesIO()
    joblib.dump(model["features"], buffer)
    assert buffer.tell() < 200_000
