"""Data sets: one that comes with the package, and readers of data sets on your disk.

Nothing needs a network, and nothing is downloaded.
"""

from sklearn_difffeat.datasets._cifar import load_cifar100
from sklearn_difffeat.datasets._coco import load_coco
from sklearn_difffeat.datasets._openclipart import load_openclipart
from sklearn_difffeat.datasets._tiny_imagenet import load_tiny_imagenet
from sklearn_difffeat.datasets._visual_genome import load_vg500
from sklearn_difffeat.datasets._voc import load_voc2007

__all__ = [
    "load_cifar100",
    "load_coco",
    "load_openclipart",
    "load_tiny_imagenet",
    "load_vg500",
    "load_voc2007",
]
