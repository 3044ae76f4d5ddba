"""How fast features come out of the store, against ``np.load`` of the same matrix.

Fills a store with the features of many short texts by a text model of width 1,152,
then times the transform that finds them all there. ``np.load`` reads a ``.npy`` file of
the float32 matrix that the transform returns. Both files are in the page cache. The
transform has more to do: it hashes every text, looks it up, and gathers the rows in the
order of X. Features of a float32 model are kept as float32, those of a bfloat16 model
as float16.

    python examples/benchmarks/warm_reads.py --rows 50000
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from _common import MB, in_fresh_process, interleaved, print_table, say, timed

from sklearn_difffeat import TextDiffusionFeatureTransformer

WIDTH = 1152
SYLLABLES = [first + second for first in "bdfgklmnprst" for second in "aeiou"]
WORDS_PER_TEXT = 3


def make_texts(count):
    """Return distinct texts, the numbers 0, 1, ... written in syllables."""
    base = len(SYLLABLES)
    if count > base**WORDS_PER_TEXT:
        raise ValueError(f"only {base**WORDS_PER_TEXT} distinct texts can be made.")
    return [
        " ".join(SYLLABLES[i // base**k % base] for k in range(WORDS_PER_TEXT))
        for i in range(count)
    ]


def save_text_model(folder):
    """Save a BERT of one block with random weights, and a tokenizer of syllables."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate(special + SYLLABLES)}
    torch.manual_seed(0)
    configuration = BertConfig(
        vocab_size=len(vocabulary), hidden_size=WIDTH, num_hidden_layers=1,
        num_attention_heads=18, intermediate_size=64, max_position_embeddings=32,
    )  # fmt: skip
    BertForMaskedLM(configuration).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{token[1:-1].lower()}_token": token for token in special}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=32, **names
    )
    fast.save_pretrained(folder)


def make_transformer(model, store, dtype):
    return TextDiffusionFeatureTransformer(model, cache=store, dtype=dtype)


def first_read(model, store, dtype, n_rows):
    """Return the seconds that the first transform of a process takes."""
    texts = make_texts(n_rows)
    transformer = make_transformer(model, store, dtype).fit(texts[:1])
    # Imports are not what is measured.
    transformer.transform(texts[:1])
    return timed(lambda: transformer.transform(texts))[0]


def compare(folder, dtype, kept, n_rows, repeats):
    """Return the table's row for one precision."""
    texts = make_texts(n_rows)
    model, store = str(Path(folder, "model")), str(Path(folder, f"{dtype}.db"))
    transformer = make_transformer(model, store, dtype).fit(texts[:1])
    say(f"  filling the store, {dtype}")
    seconds, _ = timed(lambda: transformer.precompute(texts))
    say(f"    {n_rows / seconds:.0f} rows/s")
    matrix = np.asarray(transformer.transform(texts))
    path = Path(folder, f"{dtype}.npy")
    np.save(path, matrix)
    np.testing.assert_array_equal(np.load(path), transformer.transform(texts))
    tasks = {
        "np.load": lambda: np.load(path),
        "transform": lambda: transformer.transform(texts),
    }
    # Fresh memory is fast or slow by the system's whim; the fastest turns compare.
    taken = interleaved(tasks, repeats, pick=min)
    first = in_fresh_process(first_read, model, store, dtype, n_rows)
    size = matrix.nbytes / MB
    return {
        "model": dtype,
        "kept as": kept,
        "MB": f"{size:.0f}",
        "np.load, ms": f"{1e3 * taken['np.load']:.0f}",
        "np.load, MB/s": f"{size / taken['np.load']:.0f}",
        "transform, ms": f"{1e3 * taken['transform']:.0f}",
        "transform, MB/s": f"{size / taken['transform']:.0f}",
        "ratio of speeds": f"{taken['np.load'] / taken['transform']:.2f}",
        "first in a process, ms": f"{1e3 * first:.0f}",
    }


def report(n_rows, repeats):
    """Print the table for features kept as float32 and as float16."""
    with tempfile.TemporaryDirectory() as folder:
        save_text_model(Path(folder, "model"))
        rows = [
            compare(folder, dtype, kept, n_rows, repeats)
            for dtype, kept in (("float32", "float32"), ("bfloat16", "float16"))
        ]
    about = (
        f"Warm transform of {n_rows:,} texts to {WIDTH:,} features, and `np.load` of "
        f"the same float32 matrix, the fastest of {repeats} turns each:"
    )
    print_table(about, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    report(options.rows, options.repeats)


if __name__ == "__main__":
    main()
