"""Tests of the standard text datasets, on small generated files and on the downloaded files if present."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness_nlp.datasets import ag_news, banking77, imdb, sms_spam, sst2, trec
from real_files import load_real

from harness import DataError, RawData, SeededSplit, Split


def texts(split: Split) -> list[str]:
    return list(split.inputs["text"])


def sizes(data: RawData) -> tuple[int, int, int]:
    return len(data.train), len(data.validation), len(data.test)


def trained_counts(data: RawData) -> list[int]:
    """Return the number of examples of each class in the publisher's training file."""
    return np.bincount(np.concatenate([data.train.targets, data.validation.targets])).tolist()


def test_sst2_keeps_quotation_marks_and_does_not_split_sentences(tmp_path: Path) -> None:
    folder = tmp_path / "SST-2"
    folder.mkdir()
    lines = ["sentence\tlabel"]
    for number in range(40):
        lines += [f'the {number}th " film \t1', f"the {number}th \t0"]
    (folder / "train.tsv").write_text("\n".join(lines) + "\n")
    (folder / "dev.tsv").write_text('sentence\tlabel\n"good\t1\n')
    data = sst2.read(tmp_path)
    assert texts(data.test) == ['"good']
    assert data.label_names == ("negative", "positive")
    assert trained_counts(data) == [40, 40]
    assert np.bincount(data.validation.targets).tolist() == [4, 4]
    numbers = [{text.split()[1] for text in texts(split)} for split in (data.train, data.validation)]
    assert not numbers[0] & numbers[1]
    (folder / "dev.tsv").write_text("sentence\tlabel\nfine\t1\ngood\t2\n")
    with pytest.raises(DataError, match=r"dev.tsv, line 3"):
        sst2.read(tmp_path)


def test_sst2_phrases_are_grouped_with_a_longest_phrase_that_contains_them() -> None:
    groups = sst2.sentences(["a b c d", "b c", "x b c", "d", "", "a b c d"])
    assert groups[0] == groups[1] == groups[3] == groups[5]
    assert len({groups[0], groups[2], groups[4]}) == 3


def test_sst2_as_published(real_data: None) -> None:
    data = load_real(sst2.Sst2())
    assert sizes(data) == (60_633, 6_716, 872)
    assert trained_counts(data) == [29_780, 37_569]
    assert np.bincount(data.test.targets).tolist() == [428, 444]
    assert data.label_names == ("negative", "positive")
    assert texts(data.train)[0] == "hide new secretions from the parental units"
    within = {
        tuple(words[start:end])
        for words in map(str.split, texts(data.train))
        for start in range(len(words))
        for end in range(start + 5, len(words) + 1)
    }
    long = [tuple(text.split()) for text in texts(data.validation) if len(text.split()) >= 5]
    # If phrases were drawn independently, 82% would be part of a training phrase. Two sentences can still share one.
    assert sum(phrase in within for phrase in long) < 0.01 * len(long)


def test_trec_reads_latin_1_and_both_label_sets(tmp_path: Path) -> None:
    (tmp_path / "train_5500.label").write_bytes("HUM:ind Who is Andr\xe9 ?\nNUM:date When ?\n".encode("latin-1") * 10)
    (tmp_path / "TREC_10.label").write_bytes(b"LOC:city Where ?\n")
    coarse = trec.read(tmp_path, trec.TrecOptions())
    assert coarse.label_names == ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    assert (texts(coarse.test), coarse.test.targets.tolist()) == (["Where ?"], [4])
    assert trained_counts(coarse) == [0, 0, 0, 10, 0, 10]
    assert "Who is Andr\xe9 ?" in texts(coarse.train)
    fine = trec.read(tmp_path, trec.TrecOptions(labels="fine"))
    assert fine.label_names[fine.test.targets[0]] == "LOC:city"
    (tmp_path / "TREC_10.label").write_bytes(b"LOC:city Where ?\nWHAT:ever What ?\n")
    with pytest.raises(DataError, match=r"TREC_10.label, line 2"):
        trec.read(tmp_path, trec.TrecOptions())


def test_trec_as_published(real_data: None) -> None:
    data = load_real(trec.Trec())
    assert sizes(data) == (4_906, 546, 500)
    assert trained_counts(data) == [86, 1_162, 1_250, 1_223, 835, 896]  # Li and Roth 2002, table 2
    assert np.bincount(data.test.targets).tolist() == [9, 138, 94, 65, 81, 113]
    assert sum(text in {*texts(data.train), *texts(data.validation)} for text in texts(data.test)) == 10
    assert not set(texts(data.train)) & set(texts(data.validation))
    fine = load_real(trec.Trec(), labels="fine")
    assert len(fine.label_names) == 50
    assert len(set(fine.test.targets)) == 42
    assert len(trained_counts(fine)) == 50
    assert min(trained_counts(fine)) == 4
    assert fine.label_names[0] == "ABBR:abb"


def test_banking77_reads_questions_of_several_lines(tmp_path: Path) -> None:
    (tmp_path / "categories.json").write_text('["card_lost", "top_up"]')
    rows = "".join(f'"Hello, {number}\nmy card?",card_lost\nTop {number} up,top_up\n' for number in range(10))
    (tmp_path / "train.csv").write_text("text,category\n" + rows)
    (tmp_path / "test.csv").write_text("text,category\nTop me up,top_up\n")
    data = banking77.read(tmp_path)
    assert sizes(data) == (18, 2, 1)
    assert data.label_names == ("card_lost", "top_up")
    assert sorted(data.validation.targets) == [0, 1]
    assert sum("\nmy card?" in text for text in texts(data.train)) == 9
    (tmp_path / "test.csv").write_text("text,category\nTop me up,top\n")
    with pytest.raises(DataError, match=r"test.csv.*intent"):
        banking77.read(tmp_path)


def test_banking77_as_published(real_data: None) -> None:
    data = load_real(banking77.Banking77())
    assert sizes(data) == (8_998, 1_005, 3_080)
    assert len(data.label_names) == 77
    assert data.label_names[0] == "card_arrival"
    assert (min(trained_counts(data)), max(trained_counts(data))) == (35, 187)
    assert np.bincount(data.test.targets).tolist() == [40] * 77


def test_sms_spam_keeps_duplicates_in_one_split(tmp_path: Path) -> None:
    lines = [f"ham\tSee you at {number // 2}" for number in range(80)] + [f"spam\tWIN {number}" for number in range(20)]
    (tmp_path / "SMSSpamCollection").write_text("\n".join(lines) + "\n")
    data = sms_spam.read(tmp_path, SeededSplit())
    assert sum(sizes(data)) == 100
    assert np.bincount(data.test.targets).tolist() == [16, 4]
    assert trained_counts(data) == [64, 16]
    assert data.label_names == ("ham", "spam")
    splits = [set(texts(split)) for split in (data.train, data.validation, data.test)]
    assert not splits[0] & splits[1]
    assert not (splits[0] | splits[1]) & splits[2]
    assert texts(sms_spam.read(tmp_path, SeededSplit(split_seed=1)).test) != texts(data.test)
    (tmp_path / "SMSSpamCollection").write_text("ham\tHi\nHi again\n")
    with pytest.raises(DataError, match="line 2"):
        sms_spam.read(tmp_path, SeededSplit())


def test_sms_spam_as_published(real_data: None) -> None:
    data = load_real(sms_spam.SmsSpam())
    assert sizes(data) == (4_015, 445, 1_114)
    assert data.label_names == ("ham", "spam")
    counts = sum(np.bincount(split.targets) for split in (data.train, data.validation, data.test))
    assert counts.tolist() == [4_827, 747]
    groups = sms_spam.same_texts(texts(data.train) + texts(data.validation) + texts(data.test))
    assert not set(groups[: -len(data.test)]) & set(groups[-len(data.test) :])


def write_reviews(folder: Path, count: int) -> None:
    for part in ("train", "test"):
        for name, rating in (("neg", 2), ("pos", 9)):
            (folder / "aclImdb" / part / name).mkdir(parents=True)
            for number in range(count):
                path = folder / "aclImdb" / part / name / f"{number}_{rating}.txt"
                path.write_text(f"{part} {name} {number}<br /><br />caf\xe9", encoding="utf-8")


def test_imdb_labels_come_from_folders_and_ratings_from_file_names(tmp_path: Path) -> None:
    write_reviews(tmp_path, 20)
    data = imdb.read(tmp_path)
    assert sizes(data) == (36, 4, 40)
    assert data.label_names == ("negative", "positive")
    assert data.validation.targets.tolist() == [0, 0, 1, 1]
    assert texts(data.test)[:2] == ["test neg 0  caf\xe9", "test neg 1  caf\xe9"]
    assert data.test.targets.tolist() == [0] * 20 + [1] * 20
    assert set(data.test.groups["rating"]) == {2, 9}
    for path in (tmp_path / "aclImdb" / "test" / "pos").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="has no reviews"):
        imdb.read(tmp_path)


@pytest.mark.slow
def test_imdb_as_published(real_data: None) -> None:
    data = load_real(imdb.Imdb())
    assert sizes(data) == (22_500, 2_500, 25_000)
    assert trained_counts(data) == [12_500, 12_500]
    assert np.bincount(data.test.targets).tolist() == [12_500, 12_500]
    assert data.label_names == ("negative", "positive")
    assert set(data.train.groups["rating"]) == {1, 2, 3, 4, 7, 8, 9, 10}
    known = {*texts(data.train), *texts(data.validation)}
    assert sum(text in known for text in texts(data.test)) == 123


def test_ag_news_joins_title_and_description(tmp_path: Path) -> None:
    folder = tmp_path / "ag_news_csv"
    folder.mkdir()
    (folder / "classes.txt").write_text("World\nSports\nBusiness\nSci/Tech\n")
    rows = "".join(f'"{n % 4 + 1}","Title {n}","He said ""no""\\to all, n {n}"\n' for n in range(40))
    (folder / "train.csv").write_text(rows)
    (folder / "test.csv").write_text('"3","Oil up","Prices rose."\n')
    data = ag_news.read(tmp_path)
    assert sizes(data) == (36, 4, 1)
    assert data.label_names == ("World", "Sports", "Business", "Sci/Tech")
    assert np.bincount(data.train.targets).tolist() == [9] * 4
    assert (texts(data.test), data.test.targets.tolist()) == (["Oil up Prices rose."], [2])
    assert 'Title 1 He said "no" to all, n 1' in texts(data.train) + texts(data.validation)
    (folder / "test.csv").write_text('"5","Oil up","Prices rose."\n')
    with pytest.raises(DataError, match="class from 1 to 4"):
        ag_news.read(tmp_path)


def test_ag_news_as_published(real_data: None) -> None:
    data = load_real(ag_news.AgNews())
    assert trained_counts(data) == [30_000] * 4  # Zhang et al. 2015, section 4
    assert np.bincount(data.test.targets).tolist() == [1_900] * 4
    assert data.label_names == ("World", "Sports", "Business", "Sci/Tech")
