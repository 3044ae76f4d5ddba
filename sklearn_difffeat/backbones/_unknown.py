"""Texts that an embedded tokenizer does not know, such as those in other languages."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from tokenizers import Tokenizer

from sklearn_difffeat.checkpoints._source import EMBEDDED_ROOT

# Number of characters of a text that are looked at.
LOOKED_AT = 512


@lru_cache(maxsize=4)
def _tokenizer(name: str) -> tuple[Tokenizer, int]:
    tokenizer = Tokenizer.from_file(str(EMBEDDED_ROOT / name / "tokenizer.json"))
    tokenizer.no_padding()
    unknown = tokenizer.token_to_id(tokenizer.model.unk_token)
    assert unknown is not None
    return tokenizer, unknown


def count_unknown(name: str, texts: Iterable[str]) -> int:
    """Count the texts of whose tokens more than half are unknown.

    Parameters
    ----------
    name : str
        Of an embedded backbone of texts.
    texts : iterable of str

    Returns
    -------
    int
    """
    tokenizer, unknown = _tokenizer(name)
    # Its vocabulary has all of ASCII.
    foreign = [text[:LOOKED_AT] for text in texts if not text.isascii()]
    rows = tokenizer.encode_batch(foreign, add_special_tokens=False)
    return sum(2 * row.ids.count(unknown) > len(row.ids) for row in rows)
