"""Full-size text models with random weights, against the loop of the hidden states.

The loop is the usual one: the model without its head, batches in the order of the
texts, ``output_hidden_states=True``, and the mean over the tokens of the block asked
for. It runs all blocks and pads each batch to its longest text. Both sides get the same
texts, batch size and precision, each in a fresh process, and have to return the same
features. Texts are titles and descriptions of OpenClipart, cut by the tokenizer of
``mdlm-tiny``.

    python examples/benchmarks/full_size_texts.py --rows 256
"""

import argparse
import tempfile

import numpy as np
from _common import in_fresh_process, peak_bytes, print_table, say, timed

from sklearn_difffeat.backbones import load_backbone, locate_backbone
from sklearn_difffeat.datasets import load_openclipart

GB = 1e9
MODELS = {
    "BERT base": ("BertConfig", {}),
    "RoBERTa base": (
        "RobertaConfig",
        {"vocab_size": 50265, "max_position_embeddings": 514, "pad_token_id": 0},
    ),
    "DistilBERT base": ("DistilBertConfig", {}),
    "ModernBERT base": ("ModernBertConfig", {"pad_token_id": 0}),
}


def save(name, folder):
    """Save a model of the published size, its weights random, with a tokenizer."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    kind, changes = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**changes)
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    source, _ = locate_backbone("mdlm-tiny")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source.location)
    tokenizer.save_pretrained(folder)


def run_transformer(folder, block, texts, batch_size):
    """Return load and run seconds, peak memory and features of the transformer."""
    import torch

    from sklearn_difffeat import TextDiffusionFeatureTransformer

    source, _ = locate_backbone(folder)
    loading, _ = timed(lambda: load_backbone(source, device="cpu", dtype=torch.float32))
    transformer = TextDiffusionFeatureTransformer(
        folder, block=block, batch_size=batch_size, max_length=64, device="cpu"
    ).fit(texts)
    transformer.transform(texts[:1])
    running, features = timed(lambda: transformer.transform(texts))
    return loading, running, peak_bytes(), features


def run_loop(folder, block, texts, batch_size):
    """Return load and run seconds, peak memory and features of the loop."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    # Of the head's weights, which are not loaded.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loading, model = timed(lambda: AutoModel.from_pretrained(folder).eval())

    @torch.inference_mode()
    def run(texts):
        rows = []
        for start in range(0, len(texts), batch_size):
            batch = tokenizer(
                texts[start : start + batch_size],
                padding=True,
                truncation=True,
                max_length=64,
                return_special_tokens_mask=True,
                return_tensors="pt",
            )
            real = 1 - batch.pop("special_tokens_mask").unsqueeze(-1).float()
            hidden = model(**batch, output_hidden_states=True).hidden_states[block]
            rows.append(((hidden * real).sum(1) / real.sum(1)).numpy())
        return np.vstack(rows)

    run(texts[:1])
    running, features = timed(lambda: run(texts))
    return loading, running, peak_bytes(), features


def compare(name, texts, batch_size):
    """Return the table's row of a model at its middle block."""
    with tempfile.TemporaryDirectory() as folder:
        in_fresh_process(save, name, folder)
        info = locate_backbone(folder)[1]
        block = info.n_blocks // 2
        arguments = folder, block, texts, batch_size
        load, run, peak, ours = in_fresh_process(run_transformer, *arguments)
        loop_load, loop_run, loop_peak, theirs = in_fresh_process(run_loop, *arguments)
    np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())
    say(f"  {name}: {run:.1f} s, loop {loop_run:.1f} s")
    return {
        "model": name,
        "weights, GB": f"{info.size_mb / 1e3:.2f}",
        "block": f"{block} of {info.n_blocks}",
        "load, s": f"{load:.1f}",
        "loop: load, s": f"{loop_load:.1f}",
        "texts/s": f"{len(texts) / run:.0f}",
        "loop: texts/s": f"{len(texts) / loop_run:.0f}",
        "ratio": f"{loop_run / run:.2f}",
        "peak GB": f"{peak / GB:.2f}",
        "loop: peak GB": f"{loop_peak / GB:.2f}",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    data = load_openclipart()
    texts = list(dict.fromkeys(data.data["text"][data.split == "train"]))
    texts = texts[:: len(texts) // options.rows][: options.rows]
    rows = [compare(name, texts, options.batch_size) for name in MODELS]
    about = (
        f"{len(texts)} texts, {options.batch_size} at a time, float32, on the CPU; "
        "random weights, the middle block:"
    )
    print_table(about, rows)


if __name__ == "__main__":
    main()
