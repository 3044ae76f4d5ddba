"""Images of one class each: Tiny-ImageNet and CIFAR-100, top-1 and top-5.

    python examples/protocols/single_label.py --data cifar100 --root /data/cifar
    python examples/protocols/single_label.py --data tiny-imagenet --root /data/tiny \\
        --backbone facebook/DiT-XL-2-256
"""

from _protocol import Protocol, parser_of, run

from sklearn_difffeat.datasets import load_cifar100, load_tiny_imagenet

# The name, how to read it, and its two parts.
DATA = {
    "cifar100": ("CIFAR-100", load_cifar100, ("train", "test")),
    "tiny-imagenet": ("Tiny-ImageNet", load_tiny_imagenet, ("train", "val")),
}


def main(arguments=None):
    parser = parser_of(__doc__, "single_label")
    parser.add_argument("--data", choices=list(DATA), required=True)
    options = parser.parse_args(arguments)
    name, load, subsets = DATA[options.data]
    train, test = (load(options.root, subset) for subset in subsets)
    return run(Protocol(name, train, test), options)


if __name__ == "__main__":
    main()
