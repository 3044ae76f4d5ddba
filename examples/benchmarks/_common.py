"""What the benchmarks share: timing, fresh processes, checkpoints and tables."""

import multiprocessing
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

MB = 1e6


def say(text):
    """Tell whoever waits where a benchmark stands, beside its tables."""
    print(text, file=sys.stderr, flush=True)


def timed(task):
    """Return the seconds that a task takes, and what it returns."""
    started = time.perf_counter()
    found = task()
    return time.perf_counter() - started, found


def interleaved(tasks, repeats, pick=statistics.median):
    """Return each task's seconds by name, picked of its repeats.

    The tasks take turns, so that a slow spell of the machine falls on all of them.
    """
    seconds = {name: [] for name in tasks}
    for turn in range(repeats):
        for name, task in tasks.items():
            seconds[name].append(timed(task)[0])
            say(f"    {turn + 1} of {repeats}, {name}: {seconds[name][-1]:.3f} s")
    return {name: pick(times) for name, times in seconds.items()}


def mean_average_precision(model, X, Y):
    """Score a model for a search, over the labels that have a positive in this fold."""
    from sklearn_difffeat import multilabel_report

    return multilabel_report(Y, model.predict_proba(X))["mAP"]


def in_fresh_process(function, *arguments):
    """Call a module's function in a new process, which has run nothing before."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def peak_bytes():
    """Return the most memory that this process has had resident."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux counts the parent's memory into ru_maxrss of a process that it starts.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def print_table(about, rows):
    """Print what a table shows, and its rows (dicts of text) in Markdown."""
    names = list(rows[0])
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in names]

    def line(cells):
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1])]
        padded += [text.rjust(width) for text, width in others]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    body = [line(row.values()) for row in rows]
    print("\n".join([about, "", line(names), line(rule), *body, ""]), flush=True)


def save_dit(folder, transformer, vae=None, dtype="float32"):
    """Save a DiT with random weights in the hub's layout.

    Parameters
    ----------
    folder : path
    transformer, vae : dict
        Configurations; a model without ``vae`` is one of pixels.
    dtype : str
        Of the weights in the file.
    """
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel

    torch.manual_seed(0)
    scheduler = DDIMScheduler(beta_schedule="linear", clip_sample=False)
    scheduler.save_pretrained(Path(folder, "scheduler"))
    parts = {"transformer": (DiTTransformer2DModel, transformer)}
    if vae:
        parts["vae"] = AutoencoderKL, vae
    for name, (kind, configuration) in parts.items():
        model = kind(**configuration)
        # diffusers' own ``to`` warns of layers to keep in float32; these have none.
        torch.nn.Module.to(model, getattr(torch, dtype))
        model.save_pretrained(Path(folder, name))
    return folder
