"""Command line of the pretraining recipe.

::

    python -m sklearn_difffeat.pretraining pack --out corpus ...
    python -m sklearn_difffeat.pretraining bundle corpus corpus.zip
    python -m sklearn_difffeat.pretraining align corpus
    python -m sklearn_difffeat.pretraining image --out runs/image ...
    python -m sklearn_difffeat.pretraining text --out runs/text ...
    python -m sklearn_difffeat.pretraining study corpus --out runs/study
    python -m sklearn_difffeat.pretraining evaluate --image runs/image/export
    python -m sklearn_difffeat.pretraining release runs/image corpus dit-tiny
"""

from __future__ import annotations

import argparse
from pathlib import Path


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

    bundle = commands.add_parser("bundle", help="write the corpus into one small file")
    bundle.add_argument("corpus", type=Path)
    bundle.add_argument("file", type=Path)

    unbundle = commands.add_parser("unbundle", help="and back into a folder, elsewhere")
    unbundle.add_argument("file", type=Path)
    unbundle.add_argument("corpus", type=Path)

    align = commands.add_parser("align", help="compute the teacher's targets")
    align.add_argument("corpus", type=Path)
    align.add_argument("--device", default="cpu")

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
    release.add_argument("corpus", type=Path)
    release.add_argument("name", choices=["dit-tiny", "mdlm-tiny"])

    compare = commands.add_parser("study", help="compare sizes and teachers")
    compare.add_argument("corpus", type=Path)
    compare.add_argument("--out", type=Path, required=True)
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

        write_targets(options.corpus, device=options.device)
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

        study(options.corpus, options.out, options.minutes, options.numbers)
    elif options.command == "release":
        from sklearn_difffeat.pretraining.export import release

        print(f"wrote {release(options.run, options.corpus, options.name)}")
    elif options.command == "image":
        from sklearn_difffeat.pretraining.image_recipe import run

        run(options)
    else:
        adapt_text(options)


def adapt_text(options: argparse.Namespace) -> None:
    """Collect the texts where that was not done yet, adapt the encoder, and judge."""
    from sklearn_difffeat.pretraining.loop import Schedule
    from sklearn_difffeat.pretraining.perplexity import compare_perplexity
    from sklearn_difffeat.pretraining.text import pretrain_text
    from sklearn_difffeat.pretraining.text_corpus import pack_texts, read_texts

    out = options.out
    if not (out / "texts.jsonl").exists():
        if options.descriptions is None or options.brown is None:
            raise SystemExit(
                f"{out} holds no texts.jsonl; name --descriptions and --brown, too."
            )
        pack_texts(
            out,
            wordnet=options.wordnet,
            descriptions=options.descriptions,
            brown=options.brown,
            emoji=options.emoji,
            icons=options.icons,
            n_texts=options.n_texts,
        )
    schedule = Schedule(
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup=10,
        ema_decay=0.98,
        checkpoint_every=20,
        minutes=options.minutes,
    )
    folder = pretrain_text(
        out,
        out,
        schedule,
        encoder=options.encoder,
        align=options.align,
        diffusion=options.diffusion,
        device=options.device,
    )
    print(f"wrote {folder}")
    texts = [record["text"] for record in read_texts(out, "held")]
    backbones = {"before": out / "before" / "export", "after": folder}
    print("perplexity of hidden tokens of held-out texts, by masking rate")
    print(compare_perplexity(backbones, texts).round(1).to_string())


if __name__ == "__main__":
    main()
