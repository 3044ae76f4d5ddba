"""Passes and loading with torch's default switches, for any settings of the caller."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "ipu", "xla", "mtia", "maia")


@contextmanager
def while_reading() -> Iterator[None]:
    """Set the switches while the libraries read files."""
    # The libraries change the default precision themselves while they read.
    with torch.inference_mode(False), plain_torch(alone=True):
        yield


@contextmanager
def plain_torch(*, alone: bool = False) -> Iterator[None]:
    """Compute without autocast, on the CPU by default, and in full float32.

    Autocast and the default device are settings of the caller's thread. The default
    precision and that of matrix products are settings of the whole process: they are
    changed only if they differ, and then no other thread runs a pass meanwhile.

    Parameters
    ----------
    alone : bool, default=False
        Keep other threads out, for what changes the default precision itself.
    """
    with ExitStack() as surroundings:
        for kind in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(kind):
                surroundings.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device() != torch.device("cpu"):
            surroundings.enter_context(torch.device("cpu"))
        surroundings.enter_context(_gate.passing(alone))
        yield


class _Gate:
    """Lets threads in together while the process has torch's default switches.

    A thread that has to change the switches goes in alone, and sets them back.
    """

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.inside: Counter[int] = Counter()
        self.occupied = False

    @contextmanager
    def passing(self, alone: bool) -> Iterator[None]:
        me = threading.get_ident()
        with ExitStack() as undo:
            with self.condition:
                if me not in self.inside:
                    while self.occupied or (self.inside and (alone or _changes())):
                        self.condition.wait()
                    self.occupied = alone or bool(_changes())
                self.inside[me] += 1
                undo.callback(self._leave, me)
                for change, before in _changes():
                    change()
                    undo.callback(before)
            yield

    def _leave(self, me: int) -> None:
        with self.condition:
            self.inside[me] -= 1
            if not self.inside[me]:
                del self.inside[me]
                self.occupied = False
                self.condition.notify_all()


Change = tuple[Callable[[], Any], Callable[[], Any]]


def _changes() -> list[Change]:
    """Return what to call for full float32, and what to call afterwards."""
    changes: list[Change] = []

    def change(put: Callable[[Any], Any], value: Any, before: Any) -> None:
        changes.append((partial(put, value), partial(put, before)))

    dtype = torch.get_default_dtype()
    if dtype != torch.float32:
        change(torch.set_default_dtype, torch.float32, dtype)
    # Any: torch creates these modules at run time, and type checkers do not know them.
    backends: Any = torch.backends
    on_gpu = torch.cuda.is_available()
    # torch has two kinds of switches for the precision of products, and refuses to
    # read the older ones where a newer one contradicts them.
    done = set()
    try:
        precision = torch.get_float32_matmul_precision()
        if precision != "highest":
            change(torch.set_float32_matmul_precision, "highest", precision)
            done |= {backends.mkldnn.matmul, backends.cuda.matmul}
        if on_gpu and backends.cudnn.allow_tf32:
            change(partial(setattr, backends.cudnn, "allow_tf32"), False, True)
            done.add(backends.cudnn.conv)
    except RuntimeError:
        pass
    switches = [backends.mkldnn.matmul, backends.mkldnn.conv]
    if on_gpu:
        switches += [backends.cuda.matmul, backends.cudnn.conv]
    for switch in switches:
        precision = switch.fp32_precision
        if switch not in done and precision not in ("ieee", "none"):
            change(partial(_set_precision, switch), "ieee", precision)
    return changes


def _set_precision(switch: Any, precision: str) -> None:
    # "none" means that the switch above decides, which may be the one that was set.
    switch.fp32_precision = "none"
    if switch.fp32_precision != precision:
        switch.fp32_precision = precision


_gate = _Gate()


def _forget_other_threads() -> None:
    """A forked child has none of the threads that were inside."""
    global _gate
    _gate = _Gate()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)
