"""Features in a data lake, and back from there."""

import hashlib

import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.both import BOTH

from sklearn_difffeat import (
    FeatureStore,
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)

TEXTS = ["a red apple", "two birds", "the flag of a large boat", "a house"]


@pytest.fixture
def store(tmp_path):
    found = FeatureStore(tmp_path / "features.db")
    TextDiffusionFeatureTransformer(cache=found, n_draws=2).precompute(
        TEXTS, timesteps=[0, 100]
    )
    return found


@BOTH
def test_features_come_back_bit_by_bit(kind, column, cells, tmp_path, pass_counter):
    X = list(cells(column, 9))
    options = {"timestep": [0, 100], "n_draws": 2, "cache": tmp_path / "a.db"}
    transformer = kind(**options)
    expected = transformer.fit_transform(X)
    files = FeatureStore(tmp_path / "a.db").to_parquet(tmp_path / "lake")
    store = FeatureStore.from_parquet(tmp_path / "lake", tmp_path / "b.db")
    passed = pass_counter["rows"]
    found = transformer.set_params(cache=store).transform(X)
    assert pass_counter["rows"] == passed
    np.testing.assert_array_equal(found, expected)
    assert len(files) == 1
    kept = FeatureStore(tmp_path / "a.db").describe().query("kind == 'features'")
    columns = ["backbone", "timestep", "draw", "blocks", "rows", "bytes"]
    assert store.describe()[columns].values.tolist() == kept[columns].values.tolist()


def test_a_row_is_a_text_and_a_column_a_block_and_timestep(store, tmp_path):
    (file,) = store.to_parquet(tmp_path / "features.parquet")
    table = polars.read_parquet(file)
    assert table.shape == (4, 3 + 7 * 3)
    assert table.columns[:4] == ["digest", "settings", "truncated", "b0_t0"]
    assert {"b6_t100", "b6_t100_d1"} < set(table.columns)
    transformer = TextDiffusionFeatureTransformer(block=3, timestep=0, norm=None)
    expected = transformer.fit_transform(TEXTS)
    by_digest = dict(table.select("digest", "b3_t0").iter_rows())
    for text, row in zip(TEXTS, expected, strict=True):
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        np.testing.assert_allclose(by_digest[digest], row, rtol=1e-5, atol=1e-6)


def test_the_digest_of_a_picture_is_that_of_its_files_bytes(cells, tmp_path):
    content = list(cells("image", 2))
    path = tmp_path / "picture.png"
    path.write_bytes(content[0])
    transformer = ImageDiffusionFeatureTransformer(cache=tmp_path / "a.db")
    transformer.precompute([str(path), content[1]])
    (file,) = FeatureStore(tmp_path / "a.db").to_parquet(tmp_path / "a.parquet")
    found = pq.read_table(file)["digest"].to_pylist()
    assert set(found) == {
        hashlib.blake2b(one, digest_size=16).digest() for one in content
    }


def test_rows_of_other_depth_or_without_a_pass_have_null(tmp_path):
    path = tmp_path / "a.db"
    TextDiffusionFeatureTransformer(cache=path).precompute(TEXTS[:2], timesteps=[0])
    TextDiffusionFeatureTransformer(cache=path).precompute(
        TEXTS[1:], blocks=[2], timesteps=[100]
    )
    (file,) = FeatureStore(path).to_parquet(tmp_path / "a.parquet")
    table = pq.read_table(file)
    assert table["b6_t0"].null_count == 2
    assert table["b2_t100"].null_count == 1
    assert "b3_t100" not in table.column_names
    store = FeatureStore.from_parquet(file, tmp_path / "b.db")
    columns = ["timestep", "blocks", "rows", "bytes"]
    expected = FeatureStore(path).describe()[columns].values.tolist()
    assert store.describe()[columns].values.tolist() == expected


def test_each_backbone_and_setting_has_a_file_of_its_own(cells, tmp_path):
    store = FeatureStore(tmp_path / "a.db")
    TextDiffusionFeatureTransformer(cache=store).precompute(TEXTS)
    TextDiffusionFeatureTransformer(cache=store, pooling="max").precompute(TEXTS)
    ImageDiffusionFeatureTransformer(cache=store).precompute(cells("image", 3))
    files = store.to_parquet(tmp_path / "lake")
    assert len(set(files)) == 3
    with pytest.raises(ValueError, match="features of 3 backbones or settings"):
        store.to_parquet(tmp_path / "all.parquet")
    assert not (tmp_path / "all.parquet").exists()
    copy = FeatureStore.from_parquet(tmp_path / "lake", tmp_path / "b.db")
    assert sorted(copy.describe()["rows"]) == [3, 4, 4]


def test_half_precision_takes_half_the_room_again(tmp_path, cells):
    X = list(cells("image", 3))
    path = tmp_path / "a.db"
    ImageDiffusionFeatureTransformer(cache=path, dtype="bfloat16").precompute(X)
    files = FeatureStore(path).to_parquet(tmp_path / "lake")
    assert pa.types.is_float32(pq.read_schema(files[0]).field("b1_t0").type.value_type)
    store = FeatureStore.from_parquet(tmp_path / "lake", tmp_path / "b.db")
    expected = FeatureStore(path).describe().query("kind == 'features'")
    assert store.describe()["bytes"].tolist() == expected["bytes"].tolist()


def test_a_copy_by_another_program_is_read_too(store, tmp_path):
    (file,) = store.to_parquet(tmp_path / "a.parquet")
    table = polars.read_parquet(file).sample(fraction=1.0, shuffle=True, seed=0)
    lake = tmp_path / "lake"
    (lake / "part=1").mkdir(parents=True)
    table.with_columns(mine=polars.lit("a label")).write_parquet(
        lake / "part=1" / "0.parquet"
    )
    (lake / "_SUCCESS.parquet").write_text("")
    (lake / "._hidden.parquet").write_text("")
    copy = FeatureStore.from_parquet(lake, tmp_path / "b.db")
    assert copy.describe()["rows"].tolist() == [4, 4, 4]
    # A folder of features joins what is there, and repeats cost nothing.
    size = copy.size
    FeatureStore.from_parquet(lake, tmp_path / "b.db")
    assert copy.size == size


def test_row_groups_are_small_in_a_wide_file(store, tmp_path, monkeypatch):
    from sklearn_difffeat.store import _parquet

    monkeypatch.setattr(_parquet, "GROUP_BYTES", 4 * 384 * 21)
    (file,) = store.to_parquet(tmp_path / "a.parquet")
    assert pq.ParquetFile(file).num_row_groups == 4
    copy = FeatureStore.from_parquet(file, tmp_path / "b.db")
    transformer = TextDiffusionFeatureTransformer(timestep=100, n_draws=2)
    np.testing.assert_array_equal(
        transformer.set_params(cache=copy).fit_transform(TEXTS),
        transformer.set_params(cache=store).fit_transform(TEXTS),
    )


def changed(table, name, values):
    at = table.column_names.index(name)
    kind = table.schema.field(name).type
    return table.set_column(at, name, pa.array(values, type=kind))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns("digest"), "has no column 'digest'"),
        (lambda table: table.drop_columns("settings"), "has no column 'settings'"),
        (
            lambda table: table.drop_columns("b2_t100"),
            "no column of block 2 at timestep 100",
        ),
        (lambda table: table.select(range(3)), "no column of features"),
        (
            lambda table: table.set_column(0, "digest", pa.array([b"a"] * 4)),
            "digest b'a' does not have 16 bytes",
        ),
        (lambda table: changed(table, "settings", ["{"] * 4), "settings '{'"),
        (lambda table: changed(table, "settings", ["7"] * 4), "settings '7'"),
        (
            lambda table: changed(table, "b1_t0", [[np.nan] * 384] * 4),
            "b1_t0: features are not finite",
        ),
        (
            lambda table: table.set_column(
                4, "b1_t0", pa.array([[1.0], [1.0, 2.0], [], [1.0]])
            ),
            "b1_t0: rows have features of different lengths",
        ),
    ],
)  # fmt: skip
def test_what_was_changed_is_refused_in_a_sentence(store, tmp_path, change, message):
    (file,) = store.to_parquet(tmp_path / "a.parquet")
    pq.write_table(change(pq.read_table(file)), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=message):
        FeatureStore.from_parquet(tmp_path / "b.parquet", tmp_path / "b.db")
    assert FeatureStore(tmp_path / "b.db").describe().empty


def test_what_is_not_there_or_damaged_is_an_error(store, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        FeatureStore.from_parquet(tmp_path / "lost.parquet")
    with pytest.raises(FileNotFoundError, match=r"no file \*.parquet in"):
        FeatureStore.from_parquet(tmp_path)
    (file,) = store.to_parquet(tmp_path / "a.parquet")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        FeatureStore.from_parquet(file, tmp_path / "b.db")
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        FeatureStore.from_parquet(file, tmp_path / "b.db")


def test_an_empty_store_writes_nothing(tmp_path):
    store = FeatureStore(tmp_path / "a.db")
    with pytest.raises(ValueError, match="has no features"):
        store.to_parquet(tmp_path / "a.parquet")
    assert not (tmp_path / "a.parquet").exists()


def test_without_pyarrow_the_error_names_it(store, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        store.to_parquet(tmp_path / "a.parquet")
