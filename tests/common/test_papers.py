"""Tests of common/papers.py: every paper that a claim is of can be opened from the report."""

from pathlib import Path

from common.answer import Paper
from common.find import find_specs
from common.papers import load_papers
from common.replication import claims_of

ROOT = Path(__file__).parents[2]


def test_the_papers_of_all_claims_have_a_link() -> None:
    papers = load_papers(ROOT)
    keys = {claim.source.paper for found in find_specs(ROOT).values() for claim in claims_of(found).values()}
    assert keys <= set(papers)
    assert all((papers[key].url or "").startswith("https://") for key in keys)
    assert papers["chan2024"].title == "Superposition is not “just” neuron polysemanticity"


def test_braces_are_taken_off_and_what_is_absent_stays_absent(tmp_path: Path) -> None:
    folder = tmp_path / "replications" / "a"
    folder.mkdir(parents=True)
    text = "@misc{one, title = {An {E}xample},\n note = {x}}\n@article{two,\n year = {2026},\n}\n"
    (folder / "citation.bib").write_text(text, encoding="utf-8")
    assert load_papers(tmp_path) == {"one": Paper(title="An Example"), "two": Paper(title="two", year="2026")}
