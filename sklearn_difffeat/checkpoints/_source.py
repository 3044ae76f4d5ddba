"""Where a backbone's files are: in the package, in a folder, or on the hub."""

from __future__ import annotations

import json
import os
import platform
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sklearn_difffeat._process import absolute
from sklearn_difffeat.checkpoints import _hub
from sklearn_difffeat.checkpoints._fingerprint import folder_fingerprint

EMBEDDED_ROOT = Path(__file__).parent / "embedded"
DENOISERS = ("transformer", "unet")
MARKERS = ("model_index.json", "config.json", "transformer/config.json")
# Model types that were code on the hub, which their checkpoints still name. Now they
# are part of transformers, and the code on the hub is not run.
PORTED = ("eurobert", "nomic_bert")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def embedded_names() -> list[str]:
    """Names of the backbones that ship with the package."""
    return sorted(path.parent.name for path in EMBEDDED_ROOT.glob("*/README.md"))


@dataclass(frozen=True)
class Source:
    """A folder in the hub's layout, or a hub id with the commit it resolved to.

    ``expected`` is the fingerprint at the time of the description, under which features
    are stored; the weights that are loaded must still have it.
    """

    name: str
    location: str
    on_hub: bool
    revision: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    expected: str | None = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        # On another machine the package is in another folder.
        if self.location == _embedded(self.name, None).location:
            return _embedded, (self.name, self.expected)
        return super().__reduce_ex__(protocol)

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of transformers' ``from_pretrained`` of a :attr:`snapshot`."""
        return {"trust_remote_code": self.trust_remote_code, "local_files_only": True}

    def find(self, file: str) -> Path | None:
        """Return a local path of a (small) file, or None where the source lacks it."""
        path = self.at_hand(file)
        if path is not None or not self.on_hub or self.local_files_only:
            return path
        sizes = _hub.file_sizes(self.location, self.revision, ask=True)
        if sizes is None or file not in sizes:
            return None
        return _hub.download(self.location, file, self.revision)

    def at_hand(self, file: str) -> Path | None:
        """Return the path of a file that is on this machine, or None."""
        if self.on_hub:
            return _hub.cached(self.location, file, self.revision)
        path = Path(self.location, file)
        return path if path.is_file() else None

    def size_of(self, file: str) -> int | None:
        """Return a file's size in bytes, on this machine or on the hub."""
        path = self.at_hand(file)
        if path is not None:
            return path.stat().st_size
        if not self.on_hub:
            return None
        ask = not self.local_files_only
        sizes = _hub.file_sizes(self.location, self.revision, ask=ask)
        return None if sizes is None else sizes.get(file)

    @property
    def ported(self) -> bool:
        """Whether transformers now has the code that was published with the weights."""
        config = self.read_json("config.json") or {}
        return config.get("model_type") in PORTED

    @property
    def snapshot(self) -> str:
        """The folder on this machine; of a hub id it holds what was downloaded."""
        for marker in MARKERS if self.on_hub else ():
            path = self.at_hand(marker)
            if path is not None:
                return str(path.parents[marker.count("/")])
        return self.location

    def names_in(self, folder: str) -> set[str]:
        """Return the names of the files in a sub-folder, here or on the hub."""
        names = {p.name for p in Path(self.snapshot, folder).glob("*") if p.is_file()}
        if self.on_hub and not self.local_files_only:
            files = _hub.file_sizes(self.location, self.revision, ask=True) or {}
            names |= {p.name for p in map(Path, files) if p.parent == Path(folder)}
        return names

    def read_json(self, file: str) -> dict[str, Any] | None:
        """Parse a configuration file, or return None where the source lacks it."""
        path = self.find(file)
        if path is None:
            return None
        try:
            return json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(
                f"backbone={self.name!r}: {file} is not valid JSON ({error}); "
                "download or save the model again."
            ) from error

    @property
    def license(self) -> str | None:
        """The license in the model card's metadata, by its own name if it has one."""
        import yaml
        from huggingface_hub import metadata_load

        card = self.find("README.md")
        try:
            metadata = (card and metadata_load(card)) or {}
        except (ValueError, yaml.YAMLError):
            # A card that cannot be read states no license.
            return None
        found = metadata.get("license")
        if found == "other":
            found = metadata.get("license_name") or found
        names = found if isinstance(found, list) else [found]
        return ", ".join(str(name) for name in names if name) or None

    @property
    def fingerprint(self) -> str:
        """The commit for a hub id; for a folder a digest of what its files hold."""
        if self.on_hub:
            return f"hub:{self.location}@{self.revision}"
        if not os.path.isdir(self.location):
            raise FileNotFoundError(
                f"backbone={self.name!r}: there is no folder {self.location} on "
                f"{platform.node()}; each machine needs the model at this path."
            )
        try:
            return folder_fingerprint(self.location)
        except OSError as error:
            raise OSError(
                f"backbone={self.name!r}: {error.filename!r} cannot be read "
                f"({error.strerror}); make it readable, or move it out of the folder."
            ) from error


def _embedded(name: str, expected: str | None) -> Source:
    location = str(EMBEDDED_ROOT / name)
    return Source(name, location, on_hub=False, expected=expected)


def locate(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
) -> Source:
    """Find out what a backbone's name stands for; asks the hub only for hub ids.

    A revision is of a hub id; folders and embedded backbones have no other.

    Raises
    ------
    ValueError
        When the name is not an embedded backbone, a folder or a hub id.
    OSError
        When a hub id is neither cached nor reachable.
    """
    text = os.fspath(name)
    if text in embedded_names():
        return _embedded(text, None)
    if text and os.path.isdir(absolute(text)):
        folder = absolute(text)
        return Source(text, folder, False, trust_remote_code=trust_remote_code)
    if text.startswith(".") or not HUB_ID.fullmatch(text):
        raise ValueError(_unknown(text))
    from huggingface_hub.errors import HFValidationError

    source = Source(text, text, True, revision, local_files_only, trust_remote_code)
    try:
        source = _resolve(source)
    except HFValidationError as error:
        raise ValueError(_unknown(text)) from error
    if not any(source.at_hand(marker) for marker in MARKERS):
        raise ValueError(
            f"backbone={text!r} holds neither model_index.json nor config.json; "
            "it is not a model in the layout of diffusers or transformers."
        )
    return source


def _resolve(source: Source) -> Source:
    """Find the commit of a hub id: the hub's, or without network the cache's."""
    pinned = bool(_hub.COMMIT.fullmatch(source.revision or ""))
    if pinned and any(source.at_hand(marker) for marker in MARKERS):
        return source
    reason = None
    if not source.local_files_only:
        try:
            commit = _hub.look_up(source.location, source.revision)
            sizes = _hub.file_sizes(source.location, commit, ask=False) or {}
            for marker in MARKERS:
                if marker in sizes:
                    # Under the revision's name, so that it is found without network.
                    _hub.download(source.location, marker, source.revision)
                    break
            return replace(source, revision=commit)
        except OSError as error:
            reason = error
    for marker in MARKERS:
        path = source.at_hand(marker)
        if path is not None:
            # <cache>/snapshots/<commit>/<marker>
            commit = path.parents[marker.count("/")].name
            return replace(source, revision=commit, local_files_only=True)
    found = "is only partly in" if _hub.is_interrupted(source.location) else "is not in"
    raise OSError(
        f"backbone={source.name!r} is a hub id that {found} the local cache and the "
        "hub cannot be reached; connect once to download it, pass a folder in the "
        f"hub's layout, or use one of {embedded_names()}."
    ) from reason


def check_complete(source: Source, missing: set[Any]) -> None:
    """Refuse weights that lack tensors: the libraries would fill them at random."""
    if missing:
        raise ValueError(
            f"backbone={source.name!r} lacks {len(missing)} of the tensors that its "
            f"configuration asks for, such as {sorted(map(str, missing))[0]!r}; "
            "download or save it again."
        )


def carries_code(source: Source) -> bool:
    """Whether a configuration names code that is stored beside the weights."""
    files = [f"{part}/config.json" for part in DENOISERS]
    if not any(map(source.at_hand, files)):
        files = ["tokenizer_config.json"] + ["config.json"] * (not source.ported)
    return any((source.read_json(file) or {}).get("auto_map") for file in files)


def check_trusted(source: Source, carries_code: bool) -> None:
    """Refuse a checkpoint with code of its own, unless the user trusts it.

    Raises
    ------
    ValueError
        When code would run and ``trust_remote_code`` is False.
    """
    if carries_code and not source.trust_remote_code:
        raise ValueError(
            f"backbone={source.name!r} carries code of its own, which can do anything "
            "that you can; read it, pin its `revision`, and set trust_remote_code=True "
            "to run it."
        )


def _unknown(name: str) -> str:
    return (
        f"backbone={name!r} is unknown: no folder of that name exists; use one of "
        f"{embedded_names()}, a hub id such as 'facebook/DiT-XL-2-256', or a folder in "
        "the hub's layout."
    )
