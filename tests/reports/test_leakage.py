from report_store import NASTY

from vsel_platform.evaluation.leakage import BenchmarkText, Leakage, TrainingText, find_leaks
from vsel_platform.reports.leak_texts import MAX_QUESTIONS, Row, Texts
from vsel_platform.reports.leakage import MAX_MARKDOWN, leakage_markdown, leakage_page, summary

ROW = "cd" * 32
TURNS = (("user", "What is it?"), ("assistant", "Cat."))


def leaks(n: int = 1) -> Leakage:
    questions = [BenchmarkText(f"{NASTY}{i}", ("ab" * 32,), "what is it", ("cat",)) for i in range(n)]
    return find_leaks(questions, [TrainingText(ROW, ("ab" * 32,), TURNS)])


def texts(n: int = 1, row: Row | None = None) -> Texts:
    asked = {f"{NASTY}{i}": f"<image>\nwhat is it, {NASTY}" for i in range(n)}
    return Texts(asked, {ROW: row or Row(TURNS, 1234, NASTY)})


def test_the_page_shows_question_row_and_where_it_stands_and_loads_nothing():
    page = leakage_page(leaks(), texts(), benchmark=NASTY, dataset="shapes")
    assert NASTY not in page
    assert "https://" not in page
    assert "1 of 1 question (100.0%) found in 1 training row." in page
    assert "<image>" not in page and "what is it, &lt;" in page
    assert page.count("What is it? → Cat.") == 1
    assert "position 1234, cdcdcdcdcdcdcdcd" in page
    assert '<span class="small">image: shown by 1 row</span><span class="small">question: 4 words</span>' in page


def test_images_that_could_not_be_read_are_told():
    page = leakage_page(leaks(), texts(), benchmark="b", dataset="d", n_images=1200, n_unread=7)
    assert "7 of 1,200 images could not be read, and were not looked for." in page
    assert "could not be read" not in leakage_page(leaks(), texts(), benchmark="b", dataset="d", n_images=1200)


def test_a_question_is_one_line_and_beyond_a_hundred_the_rest_is_counted():
    page = leakage_page(leaks(150), texts(150), benchmark="b", dataset="d")
    assert page.count("<tr>") == 5 + 1 + MAX_QUESTIONS
    assert "50 questions more; the table leakage has them all." in page


def test_a_question_found_in_many_rows_names_the_first_two_and_the_strongest():
    samples = [f"{i:064d}" for i in range(4)]
    found = find_leaks(
        [BenchmarkText("q", ("ab" * 32,), "what is it", ("cat",))],
        [TrainingText(sample, ("ab" * 32,), TURNS) for sample in samples],
    )
    rows = {sample: Row(TURNS, i, "") for i, sample in enumerate(samples)}
    page = leakage_page(found, Texts({"q": "what is it"}, rows), benchmark="b", dataset="d")
    assert "shown by 4 rows" in page
    assert "strongest of 4: 4 words" in page
    assert page.count("What is it?") == 2
    assert "id ," not in page


def test_findings_without_texts_are_shown_by_their_ids():
    page = leakage_page(leaks(), Texts(), benchmark="b", dataset="d")
    assert "row cdcdcdcdcdcdcdcd" in page
    assert page.count("&lt;") > 0
    assert "row cdcdcdcdcdcdcdcd" in leakage_markdown(leaks(), Texts())


def test_markdown_counts_by_kind_and_shows_the_first_ten_questions():
    text = leakage_markdown(leaks(13), texts(13))
    assert "| question | a training row about the same image asks and answers the same | 13 | 13 |" in text
    assert "| ngram | a training row has a long run of words of question and answer | 0 | 0 |" in text
    shown = text.split("| Question | Found | Training row |")[1]
    assert shown.count("image: shown by 1 row; question: 4 words") == MAX_MARKDOWN
    assert shown.count("What is it? → Cat.") == MAX_MARKDOWN
    assert "3 questions more" in shown
    assert NASTY not in text


def test_what_was_not_looked_for_is_told():
    words = "one two three four five six seven eight nine ten eleven twelve thirteen"
    many = find_leaks([BenchmarkText(str(i), (), words, ()) for i in range(11)], [])
    assert summary(many).endswith("Not looked for: 1 n-gram of so many questions that they are instructions.")
    assert leakage_page(find_leaks([], []), Texts(), benchmark="b", dataset="d").count("<section>") == 1
    assert "| Question |" not in leakage_markdown(find_leaks([], []), Texts())
