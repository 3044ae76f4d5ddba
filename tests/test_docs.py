"""Every Python block of the README and the documentation runs as written."""

import re
from pathlib import Path

import pytest

import sklearn_difffeat
from sklearn_difffeat import datasets

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks():
    for page in PAGES:
        found = re.findall(
            r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S
        )
        for number, code in enumerate(found):
            yield pytest.param(code, id=f"{page.name}-{number}")


@pytest.mark.parametrize("code", list(blocks()))
def test_code_of_the_documentation_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "documentation", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("module", [sklearn_difffeat, datasets])
def test_every_public_name_is_in_the_reference(module):
    listed = (ROOT / "docs" / "reference" / "index.md").read_text("utf-8").split()
    missing = [n for n in module.__all__ if not {n, f"datasets.{n}"} & {*listed}]
    assert not missing
