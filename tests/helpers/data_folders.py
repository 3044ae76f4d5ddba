"""Small folders in the layouts in which data sets are published."""

import json

import numpy as np
from PIL import Image

# 80 categories with gaps in their ids, listed out of order.
CATEGORY_IDS = [number for number in range(1, 100) if number % 5][:80]
COLORS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200)}


def save_picture(path, color, side=24, seed=0):
    """Save a picture of mostly one color, that differs by its seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-30, 30, (side, side, 3))
    pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def coco_name(number, subset, year):
    prefix = f"COCO_{subset}2014_" if year == 2014 else ""
    return f"{prefix}{number:012d}.jpg"


def write_coco(root, subset="train", year=2014, n_images=12, under="", first=100):
    """Write COCO's layout: image i has the categories i % 3 and, if even, the last.

    The last image has no annotation; every third has a crowd, of the category 40.
    """
    categories = [{"id": n, "name": f"thing {n}"} for n in reversed(CATEGORY_IDS)]
    numbers = range(first, first + n_images)
    images = [{"id": n, "file_name": coco_name(n, subset, year)} for n in numbers]
    annotations, captions = [], []
    for place, number in enumerate(numbers):
        color = list(COLORS)[place % 3]
        path = root / under / f"{subset}{year}" / coco_name(number, subset, year)
        save_picture(path, COLORS[color], seed=number)
        for caption in range(5):
            text = f"a {color}\n bird {caption} {number}"
            captions.append({"id": 5 * place + caption, "image_id": number})
            captions[-1]["caption"] = text
        if place == n_images - 1:
            continue
        marked = [(CATEGORY_IDS[place % 3], 0), (CATEGORY_IDS[place % 3], 0)]
        marked += [(CATEGORY_IDS[-1], 0)] * (place % 2 == 0)
        marked += [(CATEGORY_IDS[40], 1)] * (place % 3 == 0)
        annotations += [
            {"image_id": number, "category_id": category, "iscrowd": crowd}
            for category, crowd in marked
        ]
    folder = root / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    instances = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"instances_{subset}{year}.json").write_text(json.dumps(instances))
    # Written in another order than the images, and out of order within an image.
    texts = {"images": images, "annotations": captions[::-1]}
    (folder / f"captions_{subset}{year}.json").write_text(json.dumps(texts))
    return root


def write_vg500(root, n_train=8, n_test=4, regions=True):
    """Write SSGRL's lists; images lie in both folders of Visual Genome by turns."""
    names = [f"{1000 + n}.jpg" for n in range(n_train + n_test)]
    for place, name in enumerate(names):
        folder = root / ("VG_100K" if place % 2 else "VG_100K_2")
        save_picture(folder / name, list(COLORS.values())[place % 3], seed=place)
    lists = {"train": names[:n_train], "test": names[n_train:]}
    for subset, own in lists.items():
        # The released lists end without or with a line end.
        (root / f"{subset}_list_500.txt").write_text("\n".join(own))
    index = {name: [place % 3, 499] for place, name in enumerate(names)}
    (root / "vg_category_500_labels_index.json").write_text(json.dumps(index))
    if regions:
        described = [
            {"id": 1000 + place, "regions": [
                {"phrase": f"a {list(COLORS)[place % 3]} bird", "image_id": 1},
                {"phrase": "on  the house"}, {"phrase": "on the house"},
            ]}
            for place in range(len(names))
        ]  # fmt: skip
        text = json.dumps(described, indent=1)
        (root / "region_descriptions.json").write_text(text)
    return root


def write_cifar100(root, n_images=6, n_classes=100):
    folder = root / "cifar-100-binary"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for subset in ("train", "test"):
        records = random.integers(0, 256, (n_images, 3074), dtype=np.uint8)
        records[:, 0] = np.arange(n_images) % 20
        records[:, 1] = np.arange(n_images) % n_classes
        (folder / f"{subset}.bin").write_bytes(records.tobytes())
    for kind, count in (("fine", n_classes), ("coarse", 20)):
        text = "".join(f"{kind}_{n}\n" for n in range(count))
        (folder / f"{kind}_label_names.txt").write_text(text + "\n")
    return root


def write_tiny_imagenet(root, n_classes=3, n_train=4, n_val=2):
    wnids = [f"n0{n:07d}" for n in range(n_classes)][::-1]
    root.mkdir(parents=True, exist_ok=True)
    (root / "wnids.txt").write_text("\n".join(wnids) + "\n")
    words = "".join(f"{wnid}\tthing {wnid[-1]}, other\n" for wnid in sorted(wnids))
    (root / "words.txt").write_text(words + "n99999999\tunused\n")
    lines = []
    for place, wnid in enumerate(wnids):
        color = list(COLORS.values())[place % 3]
        for number in range(n_train):
            path = root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG"
            save_picture(path, color, seed=place * 10 + number)
        for number in range(n_val):
            name = f"val_{place * n_val + number}.JPEG"
            save_picture(root / "val" / "images" / name, color, seed=99 + number)
            lines.append(f"{name}\t{wnid}\t0\t0\t10\t10")
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return root
