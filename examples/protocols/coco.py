"""Diff-Feat's protocol on COCO with captions.

Blocks and timesteps are found by a local search on a part of the training images; the
heads are fitted on all of them and scored on the validation images. "COCO with
captions" is our name: what the paper's "MS-COCO-enhanced" adds to COCO is not known, so
that the paper's number and ours are of different data.

    python examples/protocols/coco.py --root /data/coco --estimate
    python examples/protocols/coco.py --root /data/coco \\
        --backbone facebook/DiT-XL-2-256 \\
        --text-backbone dllm-hub/ModernBERT-base-chat-v0.1
"""

from _protocol import Protocol, parser_of, run

from sklearn_difffeat.datasets import load_coco

# mAP in percent. Whoever has images alone is on COCO 2014.
PUBLISHED = [
    ("Diff-Feat", "image + text", 98.6, "arXiv 2509.15553, MS-COCO-enhanced"),
    ("ResNet-101", "image", 77.3, "ML-GCN's README"),
    ("ML-GCN", "image", 83.0, "ML-GCN's README"),
    ("SSGRL", "image", 83.8, "SSGRL's README"),
    ("Query2Label, ResNet-101, 448", "image", 84.9, "Query2Label's README"),
    ("Query2Label, ResNet-101, 576", "image", 86.5, "Query2Label's README"),
    ("ASL, TResNet-L", "image", 86.6, "ASL's README"),
    ("ASL, TResNet-XL", "image", 88.4, "ASL's README"),
    ("ML-Decoder, TResNet-L", "image", 90.1, "ML-Decoder's README"),
    ("ML-Decoder, TResNet-XL", "image", 91.4, "ML-Decoder's README"),
    ("Query2Label, CvT-w24", "image", 91.3, "Query2Label's README"),
]


def main(arguments=None):
    parser = parser_of(__doc__, "coco", captions=True)
    parser.add_argument("--year", type=int, choices=[2014, 2017], default=2014)
    options = parser.parse_args(arguments)
    train, test = (
        load_coco(options.root, subset, options.year, options.captions)
        for subset in ("train", "val")
    )
    name = f"COCO {options.year} with captions"
    return run(Protocol(name, train, test, PUBLISHED), options)


if __name__ == "__main__":
    main()
