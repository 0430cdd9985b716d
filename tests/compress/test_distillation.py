import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainingArguments

from compress.config import RecoveryConfig
from compress.distillation import DistillationTrainer, hidden_loss, logit_loss
from tests.compress.models import roberta, text_input


@given(seed=st.integers(0, 50), temperature=st.floats(0.5, 8))
def test_logit_loss_is_zero_only_for_the_teacher(seed, temperature):
    torch.manual_seed(seed)
    teacher, student = torch.randn(4, 3), torch.randn(4, 3)
    assert abs(logit_loss(teacher, teacher, temperature).item()) < 1e-4
    assert (
        abs(logit_loss(teacher + 2.0, teacher, temperature).item()) < 1e-4
    )  # a shift is no change
    assert logit_loss(student, teacher, temperature) > 1e-4


def test_logit_loss_against_its_definition():
    torch.manual_seed(0)
    student, teacher = (
        torch.randn(5, 3, dtype=torch.float64),
        torch.randn(5, 3, dtype=torch.float64),
    )
    p, q = (torch.softmax(x / 2.0, dim=1) for x in (teacher, student))
    expected = 4.0 * (p * (p / q).log()).sum(1).mean()
    assert torch.allclose(logit_loss(student, teacher, 2.0).double(), expected, atol=1e-5)


def test_hidden_loss_ignores_padding_and_is_relative():
    torch.manual_seed(0)
    teacher = tuple(torch.randn(2, 5, 8) for _ in range(3))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    student = tuple(t.masked_fill(mask[..., None] == 0, 1e6) for t in teacher)
    assert hidden_loss(student, teacher, mask) == 0
    assert torch.allclose(
        hidden_loss(tuple(1.5 * t for t in teacher), teacher, mask), torch.tensor(0.25)
    )


def test_a_layer_of_a_student_with_fewer_is_compared_with_the_last_of_those_it_stands_for():
    torch.manual_seed(0)
    teacher = tuple(torch.randn(2, 5, 8) for _ in range(1 + 6))  # embeddings, then 6 layers
    mask = torch.ones(2, 5)
    assert hidden_loss((teacher[0], teacher[3], teacher[6]), teacher, mask) == 0
    assert hidden_loss((teacher[0], teacher[2], teacher[5]), teacher, mask) > 0.5
    with pytest.raises(ValueError, match="zip"):
        hidden_loss(teacher[:5], teacher, mask)


@pytest.mark.parametrize("weight", ["label_weight", "logits_weight", "hidden_weight"])
def test_the_teacher_computes_only_where_something_is_distilled(tmp_path, weight):
    calls = []
    teacher, inputs = roberta(), text_input()
    teacher.register_forward_hook(lambda *_: calls.append(1))
    recovery = RecoveryConfig(
        **({"label_weight": 0, "logits_weight": 0, "hidden_weight": 0} | {weight: 1})
    )
    given = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    trainer = DistillationTrainer(model=roberta(), args=given, teacher=teacher, recovery=recovery)
    inputs["labels"] = torch.zeros(len(inputs["input_ids"]), dtype=torch.long)
    loss = trainer.compute_loss(trainer.model, inputs)
    assert loss.requires_grad and len(calls) == (weight != "label_weight")
