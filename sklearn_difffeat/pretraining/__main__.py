"""Command line of the pretraining recipe.

::

    python -m sklearn_difffeat.pretraining image --out runs/image ...
    python -m sklearn_difffeat.pretraining text --out runs/text ...
    python -m sklearn_difffeat.pretraining evaluate --image runs/image/export
    python -m sklearn_difffeat.pretraining release runs/image dit-tiny
"""

from __future__ import annotations

import argparse
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m sklearn_difffeat.pretraining")
    commands = root.add_subparsers(dest="command", required=True)

    text = commands.add_parser("text", help="adapt or go on adapting the text backbone")
    text.add_argument("--out", type=Path, required=True,
                      help="folder of corpus, checkpoints and export")  # fmt: skip
    text.add_argument("--wordnet", type=Path, default="/usr/share/wordnet")
    text.add_argument("--descriptions", type=Path,
                      help="xz file, one description a line")  # fmt: skip
    text.add_argument("--brown", type=Path, help="folder of the Brown corpus")
    text.add_argument("--emoji", type=Path, nargs="*", default=[],
                      help="emoji.json of emoji packages")  # fmt: skip
    text.add_argument("--icons", type=Path, nargs="*", default=[],
                      help="icons.json of Iconify collections")  # fmt: skip
    text.add_argument("--n-texts", type=int, default=24_000)
    text.add_argument("--encoder", type=Path,
                      help="folder of a BertModel; else MiniLM's package")  # fmt: skip
    text.add_argument("--steps", type=int, default=1500)
    text.add_argument("--minutes", type=float,
                      help="stop after so many, the decay included")  # fmt: skip
    text.add_argument("--batch-size", type=int, default=8, help="rows of 96 tokens")
    text.add_argument("--learning-rate", type=float, default=1.5e-4)
    text.add_argument("--align", type=float, default=1.0,
                      help="weight of the self-alignment")  # fmt: skip
    text.add_argument("--diffusion", type=float, default=0.1,
                      help="weight of the diffusion loss")  # fmt: skip
    text.add_argument("--device", default="cpu")

    image = commands.add_parser("image", help="make the image backbone, all of it")
    image.add_argument("--out", type=Path, required=True,
                       help="folder of latents, checkpoints and export")  # fmt: skip
    image.add_argument("--emoji", type=Path, nargs="+", required=True,
                       help="folders of emoji packages, emoji.json first")  # fmt: skip
    image.add_argument("--icons", type=Path, nargs="*", default=[],
                       help="folders of Iconify collections")  # fmt: skip
    image.add_argument("--photos", type=Path, required=True,
                       help="folder of JPEG photographs, by class")  # fmt: skip
    image.add_argument("--n-photos", type=int, default=6000)
    image.add_argument("--n-pictures", type=int, help="at most so many in all")
    image.add_argument("--n-held", type=int, default=256,
                       help="pictures kept from training, to compare with")  # fmt: skip
    image.add_argument("--steps", type=int, default=1000)
    image.add_argument("--minutes", type=float,
                       help="stop after so many, the decay included")  # fmt: skip
    image.add_argument("--batch-size", type=int, default=32)
    image.add_argument("--learning-rate", type=float, default=1e-3)
    image.add_argument("--seed", type=int, default=0)

    release = commands.add_parser("release", help="bundle a run under a name")
    release.add_argument("run", type=Path)
    release.add_argument("name", choices=["dit-tiny", "mdlm-tiny"])

    judge = commands.add_parser("evaluate", help="compare with the usual tools")
    judge.add_argument("--image", default="dit-tiny", help="name or folder")
    judge.add_argument("--text", default="mdlm-tiny", help="name or folder")
    judge.add_argument("--development", action="store_true",
                       help="judge by folds of the training groups alone")  # fmt: skip
    judge.add_argument("--fashion", type=Path,
                       help="folder of Fashion-MNIST's four files")  # fmt: skip
    judge.add_argument("--photos", type=Path,
                       help="folder of JPEG photographs, by class")  # fmt: skip
    judge.add_argument("--n-probe", type=int,
                       help="pictures that train a linear probe; else all")  # fmt: skip
    judge.add_argument("--latents", type=Path,
                       help="folder of latents, corpus/ of an image run")  # fmt: skip
    judge.add_argument("--before", type=Path,
                       help="before/export of a text run, to compare with")  # fmt: skip
    judge.add_argument("--out", type=Path, default="output",
                       help="folder of maps, nearest pictures and texts")  # fmt: skip
    judge.add_argument("--only", choices=["openclipart", "probes", "samples"],
                       help="one part of it; else all")  # fmt: skip
    return root


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if options.command == "evaluate":
        from sklearn_difffeat.pretraining.evaluate import PARTS, evaluate

        evaluate(
            {"image": options.image, "text": options.text},
            options.out,
            development=options.development,
            fashion=options.fashion,
            photos=options.photos,
            n_probe=options.n_probe,
            latents=options.latents,
            before=options.before,
            parts=[options.only] if options.only else PARTS,
        )
    elif options.command == "release":
        from sklearn_difffeat.pretraining.export import release

        print(f"wrote {release(options.run, options.name)}")
    else:
        from sklearn_difffeat.pretraining import recipes

        make = {"image": recipes.make_image, "text": recipes.make_text}
        make[options.command](options)


if __name__ == "__main__":
    main()
