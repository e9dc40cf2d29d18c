"""Scores of a linear model on character n-grams for cldr-langid: ``python -m benchmarks.character_ngrams``.

The model is scikit-learn's logistic regression on TF-IDF features of character 1- to 5-grams, fitted with several
values of C. This model is an inexpensive alternative to the models of the `nlp` task. Choose the value of C with the
best validation accuracy.
"""

from __future__ import annotations

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from tabulate import tabulate

from harness.plugins import discover


def main() -> None:
    dataset = discover().dataset("cldr-langid")
    data = dataset.load(dataset.Options())
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True)
    train = vectorizer.fit_transform(data.train.inputs["text"])
    rows = []
    for c in (1, 10, 100):
        model = LogisticRegression(C=c, max_iter=1000).fit(train, data.train.targets)
        scores = (
            model.score(vectorizer.transform(split.inputs["text"]), split.targets)
            for split in (data.validation, data.test)
        )
        rows.append([c, *(f"{score:.4f}" for score in scores)])
    print(tabulate(rows, ["C", "validation accuracy", "test accuracy"], tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
