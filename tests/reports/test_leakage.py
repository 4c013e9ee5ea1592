from report_store import NASTY

from vsel_platform.evaluation.leakage import BenchmarkText, Leakage, TrainingText, find_leaks
from vsel_platform.reports.leakage import MAX_FINDINGS, leakage_markdown, leakage_page, summary


def leaks(n: int = 1) -> Leakage:
    questions = [BenchmarkText(f"{NASTY}{i}", ("ab" * 32,), "what is it", ("cat",)) for i in range(n)]
    return find_leaks(
        questions, [TrainingText("cd" * 32, ("ab" * 32,), (("user", "What is it?"), ("assistant", "Cat.")))]
    )


def test_the_page_lists_findings_and_loads_nothing():
    page = leakage_page(leaks(), benchmark=NASTY, dataset="shapes")
    assert NASTY not in page
    assert "https://" not in page
    assert "1 of 1 question (100.0%) found in 1 training row." in page
    assert page.count("<code>cdcdcdcdcdcdcdcd</code>") == 2
    assert "rows that show it" in page


def test_images_that_could_not_be_read_are_told():
    page = leakage_page(leaks(), benchmark="b", dataset="d", n_images=1200, n_unread=7)
    assert "7 of 1,200 images could not be read, and were not looked for." in page
    assert "could not be read" not in leakage_page(leaks(), benchmark="b", dataset="d", n_images=1200)


def test_beyond_two_hundred_findings_the_rest_is_counted():
    page = leakage_page(leaks(150), benchmark="b", dataset="d")
    assert page.count("<tr>") == 5 + 1 + MAX_FINDINGS
    assert "100 findings more." in page


def test_markdown_counts_by_kind():
    text = leakage_markdown(leaks(3))
    assert "| question | a training row about the same image asks and answers the same | 3 | 3 |" in text
    assert "| ngram | a training row has a long run of words of question and answer | 0 | 0 |" in text


def test_what_was_not_looked_for_is_told():
    words = "one two three four five six seven eight nine ten eleven twelve thirteen"
    many = find_leaks([BenchmarkText(str(i), (), words, ()) for i in range(11)], [])
    assert summary(many).endswith("Not looked for: 1 n-gram of so many questions that they are instructions.")
    assert leakage_page(find_leaks([], []), benchmark="b", dataset="d").count("<section>") == 1
