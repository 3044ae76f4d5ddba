"""Small checkpoints in the hub's layout, built once a session, and real cells."""

import functools
import json
import os

# With `-n auto` as many processes run tests as there are cores: each of them, and what
# it starts, keeps to one thread. Set before the first import of torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from helpers.image_dits import dit
from hypothesis import settings
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CamembertForMaskedLM,
    DebertaV2ForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraForMaskedLM,
    EuroBertForMaskedLM,
    FNetForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    NomicBertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaForMaskedLM,
)

from sklearn_difffeat import FeatureStore
from sklearn_difffeat.datasets import load_openclipart

# A busy machine is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

WORDS = "a red green blue small large apple bird boat house flag of on the and".split()
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 34,
}


def save_dit(folder, *, legacy=False):
    """Save the parts of a small DiT, as they are initialised."""
    torch.manual_seed(0)
    parts = dit()
    for name in ("transformer", "vae"):
        parts[name].save_pretrained(folder / name, safe_serialization=not legacy)
    parts["scheduler"].save_pretrained(folder / "scheduler")
    if legacy:
        path = folder / "transformer" / "config.json"
        config = json.loads(path.read_text())
        config |= {"_class_name": "Transformer2DModel", "num_vector_embeds": None}
        path.write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def dit_folder(tmp_path_factory):
    """A latent DiT: VAE with 4 channels, 1,000 classes, 3 blocks of width 16."""
    return save_dit(tmp_path_factory.mktemp("dit"))


@pytest.fixture(scope="session")
def legacy_dit_folder(tmp_path_factory):
    """The same as checkpoints of 2022 were saved: old class name, ``.bin`` weights."""
    return save_dit(tmp_path_factory.mktemp("dit-legacy"), legacy=True)


def word_tokenizer(max_length=32):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate(special + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


# Those of which only the sizes have to be told.
OTHERS = {
    "camembert": CamembertForMaskedLM,
    "deberta-v2": DebertaV2ForMaskedLM,
    "electra": ElectraForMaskedLM,
    "eurobert": EuroBertForMaskedLM,
    "fnet": FNetForMaskedLM,
    "nomic_bert": NomicBertForMaskedLM,
    "xlm-roberta": XLMRobertaForMaskedLM,
}


def build_masked_lm(family, **changes):
    torch.manual_seed(0)
    common = {"vocab_size": 5 + len(WORDS), "pad_token_id": 0}
    if family in OTHERS:
        kind = OTHERS[family]
        options = SIZES | common
        if family == "deberta-v2":
            # As in DeBERTa v3: positions are told by their distance alone.
            options |= {
                "relative_attention": True, "position_biased_input": False,
                "pos_att_type": ["p2c", "c2p"], "position_buckets": 8,
                "share_att_key": True, "norm_rel_ebd": "layer_norm",
                "type_vocab_size": 0,
            }  # fmt: skip
        if family == "electra":
            options["embedding_size"] = 8
        return kind(kind.config_class(**options | changes))
    if family == "bert":
        return BertForMaskedLM(BertConfig(**SIZES, **common))
    if family == "roberta":
        return RobertaForMaskedLM(RobertaConfig(**SIZES, **common))
    if family == "modernbert":
        common |= changes
        ids = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2}
        return ModernBertForMaskedLM(
            ModernBertConfig(**SIZES, **common, **ids, eos_token_id=3)
        )
    return DistilBertForMaskedLM(
        DistilBertConfig(
            dim=16, n_layers=3, n_heads=2, hidden_dim=32, max_position_embeddings=34,
            **common,
        )
    )  # fmt: skip


@pytest.fixture(scope="session", params=["bert", "roberta", "distilbert", "modernbert"])
def masked_lm_folder(request, tmp_path_factory):
    """A masked language model of each family: 3 blocks of width 16."""
    folder = tmp_path_factory.mktemp(request.param)
    build_masked_lm(request.param).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert-alone")
    build_masked_lm("bert").save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sliding_window_folder(tmp_path_factory):
    """A ModernBERT whose attention sees two tokens to each side."""
    folder = tmp_path_factory.mktemp("sliding")
    build_masked_lm("modernbert", local_attention=4).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Small pipelines in the hub's layout, saved when they are first asked for."""
    from helpers.image_checkpoints import save_pipeline

    @functools.cache
    def checkpoint(family):
        return save_pipeline(family, tmp_path_factory.mktemp(family))

    return checkpoint


@pytest.fixture(scope="session")
def text_checkpoints(tmp_path_factory):
    """Folder and model of small text families, saved when they are first asked for."""
    from helpers.text_checkpoints import save

    @functools.cache
    def checkpoint(family):
        folder = tmp_path_factory.mktemp(family)
        return folder, save(family, folder)

    return checkpoint


@pytest.fixture(scope="module")
def remote_code(tmp_path_factory):
    """Checkpoints' code is imported from a folder of the module's own."""
    from helpers.text_checkpoints import remote_code_in

    with remote_code_in(tmp_path_factory.mktemp("modules")):
        yield


@pytest.fixture(scope="session")
def clipart():
    """Real images and texts: 60 items, spread over the data set."""
    X, Y, groups = load_openclipart(return_X_y_groups=True)
    rows = np.linspace(0, len(X) - 1, 60).astype(int)
    kept = Y[rows].sum(axis=0) >= 3
    return X.iloc[rows].reset_index(drop=True), Y[rows][:, kept], groups[rows]


@pytest.fixture
def cells(clipart):
    return lambda column, count: clipart[0][column].drop_duplicates()[:count]


@pytest.fixture
def cache(request, tmp_path):
    """The store in memory, empty, or a path."""
    call = getattr(request.node, "callspec", None)
    where = call.params.get("where", "file") if call else "file"
    FeatureStore().clear()
    yield True if where == "memory" else str(tmp_path / "features.db")
    FeatureStore().clear()


@pytest.fixture
def pass_counter(monkeypatch):
    """Counts the rows that enter a model, and the models loaded."""
    from sklearn_difffeat.backbones import release_backbones
    from sklearn_difffeat.backbones.dit import DiTBackbone
    from sklearn_difffeat.backbones.masked_lm import MaskedLMBackbone

    counts = {"rows": 0, "loads": 0, "encoded": 0}
    for kind in (DiTBackbone, MaskedLMBackbone):
        run, load = kind.run, kind.load.__func__

        def counted_run(self, inputs, *args, _run=run):
            counts["rows"] += len(getattr(inputs, "ids", inputs))
            return _run(self, inputs, *args)

        def counted_load(cls, *args, _load=load):
            counts["loads"] += 1
            return _load(cls, *args)

        monkeypatch.setattr(kind, "run", counted_run)
        monkeypatch.setattr(kind, "load", classmethod(counted_load))
    encode = DiTBackbone.encode

    def counted_encode(self, pixels):
        counts["encoded"] += len(pixels)
        return encode(self, pixels)

    monkeypatch.setattr(DiTBackbone, "encode", counted_encode)
    release_backbones()
    yield counts
    release_backbones()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    from helpers.pretraining_runs import write_corpus

    return write_corpus(tmp_path_factory.mktemp("corpus"))
