"""Diff-Feat's protocol on Visual Genome 500.

As on COCO; the texts are the descriptions of the images' regions, where the folder has
``region_descriptions.json``. Which texts the paper took is not known.

    python examples/protocols/vg500.py --root /data/visual_genome --estimate
    python examples/protocols/vg500.py --root /data/visual_genome \\
        --backbone facebook/DiT-XL-2-256
"""

from _protocol import Protocol, parser_of, run

from sklearn_difffeat.datasets import load_vg500

# mAP in percent.
PUBLISHED = [
    ("Diff-Feat", "image + text", 45.7, "arXiv 2509.15553"),
    ("SSGRL", "image", 36.6, "SSGRL's README"),
]


def main(arguments=None):
    options = parser_of(__doc__, "vg500", captions=True).parse_args(arguments)
    train, test = (
        load_vg500(options.root, subset, options.captions)
        for subset in ("train", "test")
    )
    return run(Protocol("Visual Genome 500", train, test, PUBLISHED), options)


if __name__ == "__main__":
    main()
