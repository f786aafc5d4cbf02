"""Pages that an operator reads exist in both languages, refer to each other, and say the same numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks._fidelity_chinese import chinese

DOCS = Path(__file__).parents[3] / "docs"
# For those who change the code, who read its comments too, and for vLLM's maintainers.
ENGLISH_ONLY = {"architecture.md", "silicon.md", "strict.md", "upstream"}
PAGES = sorted(
    str(page.relative_to(DOCS))
    for page in DOCS.rglob("*.md")
    if "zh" not in page.relative_to(DOCS).parts and not ENGLISH_ONLY & set(page.relative_to(DOCS).parts)
)


@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_in_chinese_too(page: str) -> None:
    text = (DOCS / "zh" / page).read_text(encoding="utf-8")
    assert re.search(r"[\u4e00-\u9fff]{4}", text)


@pytest.mark.parametrize("page", [page for page in PAGES if "/" not in page])
def test_the_two_refer_to_each_other(page: str) -> None:
    assert f"(zh/{page})" in (DOCS / page).read_text(encoding="utf-8")
    assert f"(../{page})" in (DOCS / "zh" / page).read_text(encoding="utf-8")


def test_fidelity_is_the_english_page_with_other_words() -> None:
    translated = chinese((DOCS / "fidelity.md").read_text(encoding="utf-8"))
    assert (DOCS / "zh/fidelity.md").read_text(encoding="utf-8") == translated
    for line in translated.splitlines():
        prose = re.sub(r"`[^`]*`|\([^)]*\)|github\S+|aclnn\w+", "", line)
        assert not re.search(r"[a-z]{3,} [a-z]{2,} [a-z]{2,}", prose), f"left in English: {line}"


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "page", sorted([*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md"), *DOCS.parent.glob("*/README.md")]), ids=str
)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [link for link in links(page) if not (page.parent / link).exists()]
    assert not missing
