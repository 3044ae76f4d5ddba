"""Command line of the pretraining recipe.

::

    python -m sklearn_difffeat.pretraining pack --out corpus ...
    python -m sklearn_difffeat.pretraining bundle corpus corpus.zip
    python -m sklearn_difffeat.pretraining align corpus
    python -m sklearn_difffeat.pretraining image --out runs/image ...
    python -m sklearn_difffeat.pretraining text corpus --out runs/text
    python -m sklearn_difffeat.pretraining study corpus --out runs/study --kind image
    python -m sklearn_difffeat.pretraining evaluate --image runs/image/export
    python -m sklearn_difffeat.pretraining release runs/image corpus dit-tiny
"""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULTS = {"text": (8000, 16, 7e-4)}
CLEAN_SHARE = {"text": 0.6}
DIFFUSION = {"text": 0.2}
SCHEDULE = {
    "decay_share": 0.3,
    "ema_decay": 0.999,
    "checkpoint_every": 200,
    "frozen_steps": 0,
    "seed": 0,
}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m sklearn_difffeat.pretraining")
    commands = root.add_subparsers(dest="command", required=True)

    pack = commands.add_parser("pack", help="collect pictures and texts")
    pack.add_argument("--out", type=Path, required=True)
    pack.add_argument("--clipart", type=Path, default="/usr/share/openclipart")
    pack.add_argument("--emoji", type=Path, nargs="+", required=True,
                      help="folders of PNG or WebP drawings")  # fmt: skip
    pack.add_argument("--icons", type=Path, nargs="*", default=[],
                      help="icons.json of Iconify collections")  # fmt: skip
    pack.add_argument("--photos", type=Path, required=True,
                      help="folder of JPEG photographs, by class")  # fmt: skip
    pack.add_argument("--n-photos", type=int, default=20_000)
    pack.add_argument("--wordnet", type=Path, default="/usr/share/wordnet")
    pack.add_argument("--descriptions", type=Path, required=True,
                      help="xz file, one description a line")  # fmt: skip
    pack.add_argument("--brown", type=Path, required=True,
                      help="folder of the Brown corpus")  # fmt: skip

    bundle = commands.add_parser("bundle", help="write the corpus into one small file")
    bundle.add_argument("corpus", type=Path)
    bundle.add_argument("file", type=Path)

    unbundle = commands.add_parser("unbundle", help="and back into a folder, elsewhere")
    unbundle.add_argument("file", type=Path)
    unbundle.add_argument("corpus", type=Path)

    align = commands.add_parser("align", help="compute the teachers' targets")
    align.add_argument("corpus", type=Path)
    align.add_argument("--only", choices=["image", "text"])
    align.add_argument("--device", default="cpu")

    for kind, (steps, batch_size, learning_rate) in DEFAULTS.items():
        run = commands.add_parser(kind, help=f"train or resume the {kind} backbone")
        run.add_argument("corpus", type=Path)
        run.add_argument("--out", type=Path, required=True)
        run.add_argument("--steps", type=int, default=steps)
        run.add_argument("--batch-size", type=int, default=batch_size)
        run.add_argument("--learning-rate", type=float, default=learning_rate)
        run.add_argument("--align", type=float, default=1.0,
                         help="weight of the alignment; 0: no teacher")  # fmt: skip
        run.add_argument("--align-block", type=int, default=6)
        run.add_argument("--clean-share", type=float, default=CLEAN_SHARE[kind],
                         help="share of a batch that is not noised")  # fmt: skip
        run.add_argument("--diffusion", type=float, default=DIFFUSION[kind],
                         help="weight of the diffusion loss")  # fmt: skip
        run.add_argument("--start-from",
                         help="name or folder whose weights a new run starts from; "
                         "--frozen-steps then fit the projectors alone")  # fmt: skip
        run.add_argument("--device", default="cpu")
        run.add_argument("--minutes", type=float,
                         help="stop after so many, the decay included")  # fmt: skip
        for name, value in SCHEDULE.items():
            flag = "--" + name.replace("_", "-")
            run.add_argument(flag, type=type(value), default=value)

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
    release.add_argument("corpus", type=Path)
    release.add_argument("name", choices=["dit-tiny", "mdlm-tiny"])

    compare = commands.add_parser("study", help="compare sizes and teachers")
    compare.add_argument("corpus", type=Path)
    compare.add_argument("--out", type=Path, required=True)
    compare.add_argument("--kind", choices=["image", "text"], required=True)
    compare.add_argument("--minutes", type=float, default=8.0,
                         help="of training for each variant")  # fmt: skip
    compare.add_argument("--numbers", type=int, nargs="+",
                         help="variants, from 0; else all")  # fmt: skip

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
    judge.add_argument("--out", type=Path, default="output",
                       help="folder of maps, generated pictures and texts")  # fmt: skip
    judge.add_argument("--only", choices=["openclipart", "probes", "samples"],
                       help="one part of it; else all")  # fmt: skip
    return root


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if options.command == "pack":
        from sklearn_difffeat.pretraining.corpus import pack

        inputs = {k: v for k, v in vars(options).items() if k not in ("command", "out")}
        pack(options.out, **inputs)
    elif options.command == "bundle":
        from sklearn_difffeat.pretraining.travel import bundle

        path = bundle(options.corpus, options.file)
        print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB")
    elif options.command == "unbundle":
        from sklearn_difffeat.pretraining.travel import unbundle

        print(f"wrote {unbundle(options.file, options.corpus)}")
    elif options.command == "align":
        from sklearn_difffeat.pretraining.teachers import write_targets

        for kind in [options.only] if options.only else ["image", "text"]:
            write_targets(options.corpus, kind, device=options.device)
    elif options.command == "evaluate":
        from sklearn_difffeat.pretraining.evaluate import PARTS, evaluate

        evaluate(
            {"image": options.image, "text": options.text},
            options.out,
            development=options.development,
            fashion=options.fashion,
            photos=options.photos,
            n_probe=options.n_probe,
            parts=[options.only] if options.only else PARTS,
        )
    elif options.command == "study":
        from sklearn_difffeat.pretraining.study import study

        study(
            options.corpus,
            options.out,
            options.kind,
            options.minutes,
            options.numbers,
        )
    elif options.command == "release":
        from sklearn_difffeat.pretraining.export import release

        print(f"wrote {release(options.run, options.corpus, options.name)}")
    elif options.command == "image":
        from sklearn_difffeat.pretraining.image_recipe import run

        run(options)
    else:
        from sklearn_difffeat.pretraining.loop import Schedule
        from sklearn_difffeat.pretraining.text import pretrain_text

        folder = pretrain_text(
            options.corpus,
            options.out,
            Schedule(
                steps=options.steps,
                batch_size=options.batch_size,
                learning_rate=options.learning_rate,
                minutes=options.minutes,
                **{name: getattr(options, name) for name in SCHEDULE},
            ),
            align=options.align,
            align_block=options.align_block,
            clean_share=options.clean_share,
            diffusion=options.diffusion,
            start_from=options.start_from,
            device=options.device,
        )
        print(f"wrote {folder}")


if __name__ == "__main__":
    main()
