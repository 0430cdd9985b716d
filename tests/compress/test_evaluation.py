import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.config import Params
from compress.data import prepare
from compress.evaluation import predict, score
from compress.rows import Rows


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=50))
def test_accuracy_in_points(pairs):
    labels, predictions = np.array(pairs).T
    expected = 100 * (labels == predictions).mean()
    assert score("accuracy", labels, predictions) == pytest.approx(expected)


def test_matthews_and_f1():
    labels = np.array([0, 0, 1, 1])
    assert score("matthews_correlation", labels, labels) == 100
    assert score("matthews_correlation", labels, 1 - labels) == -100
    assert score("f1", labels, labels) == 100


def test_predictions_are_in_row_order_and_need_no_batching(tmp_path, small_params, roberta_folder):
    from pathlib import Path

    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    prepare(Params.model_validate(small_params), Path(), tmp_path)
    rows = Rows(tmp_path / "validation.parquet")
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(roberta_folder)
    tokenizer = AutoTokenizer.from_pretrained(roberta_folder)
    batched = predict(model, tokenizer, rows, batch_size=7)
    single = predict(model, tokenizer, rows, batch_size=1)
    assert batched.shape == (64, 2)
    np.testing.assert_allclose(batched, single, atol=1e-5)
