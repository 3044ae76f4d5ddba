"""What the hub, and its cache on this machine, hold of a repository."""

from __future__ import annotations

import re
from pathlib import Path

COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT = 10.0

# Sizes of the files of (repository, commit); None where the hub could not be asked.
_sizes: dict[tuple[str, str], dict[str, int] | None] = {}


def look_up(name: str, revision: str | None) -> str:
    """Ask the hub which commit a revision is, and remember the sizes of its files.

    Without network a download would retry for half a minute; this asks once.

    Raises
    ------
    ValueError
        When there is no such repository or revision.
    OSError
        When the hub cannot be reached.
    """
    from huggingface_hub import errors, model_info

    try:
        info = model_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise _refusal(name, revision, error) from error
    except (errors.HTTPError, OSError) as error:
        raise OSError(f"the hub cannot be reached ({error})") from error
    commit = str(info.sha)
    _sizes[name, commit] = {
        sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []
    }
    return commit


def file_sizes(name: str, commit: str | None, *, ask: bool) -> dict[str, int] | None:
    """Return the sizes of a commit's files; None where they are not known.

    The hub is asked only when ``ask`` is True, and not again after it did not answer.
    """
    if ask and commit is not None and (name, commit) not in _sizes:
        try:
            look_up(name, commit)
        except OSError:
            _sizes.setdefault((name, commit), None)
    return _sizes.get((name, str(commit)))


def cached(name: str, file: str, revision: str | None) -> Path | None:
    """Return where the cache holds a file, or None."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def is_interrupted(name: str) -> bool:
    """Whether the cache holds a download of this repository that did not finish."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(
        constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model")
    )
    return any(folder.glob("blobs/*.incomplete"))


def download(name: str, file: str, revision: str | None) -> Path | None:
    """Return a file from the cache or the hub, with a progress bar where it is large.

    Raises
    ------
    ValueError
        When the repository is gated.
    OSError
        When the hub cannot be reached.
    """
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(name, file, revision=revision))
    except errors.RepositoryNotFoundError as error:
        raise _refusal(name, revision, error) from error
    except errors.LocalEntryNotFoundError as error:
        raise OSError(
            f"backbone={name!r}: {file} is not in the local cache and the hub cannot "
            "be reached; connect and try again, a download continues where it stopped."
        ) from error
    except errors.EntryNotFoundError:
        return None
    except (errors.HTTPError, OSError) as error:
        raise OSError(
            f"backbone={name!r}: the download of {file} stopped ({error}); try "
            "again, it continues where it stopped."
        ) from error


def _refusal(name: str, revision: str | None, error: Exception) -> ValueError:
    from huggingface_hub.errors import GatedRepoError

    state = "was not found"
    hint = "check the spelling, and `revision`; a private one needs `hf auth login`"
    if isinstance(error, GatedRepoError):
        state = "is gated"
        hint = "accept its terms on the hub and log in with `hf auth login`"
    return ValueError(
        f"backbone={name!r} (revision {revision or 'main'}) {state} on the hub; {hint}."
    )
