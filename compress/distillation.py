"""Distillation from the uncompressed teacher: logits (Hinton et al. 2015) and hidden states."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Trainer

from compress.augmentation import TokenReplacement
from compress.config import RecoveryConfig
from compress.learning import penalties
from compress.rows import predictions


class DistillationTrainer(Trainer):
    """Trainer whose loss compares the student with `teacher` by the weights of `recovery`; codecs
    that learn may add to it. Texts to train on go through `replaced` first, where it is given."""

    def __init__(
        self,
        *args: Any,
        teacher: nn.Module,
        recovery: RecoveryConfig,
        replaced: TokenReplacement | None = None,
        **options: Any,
    ):
        super().__init__(*args, **options)
        self._replaced = replaced
        self._teacher = teacher.eval().requires_grad_(False).to(self.args.device)
        self._recovery = recovery

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        config = self._recovery
        distilled = config.logits_weight > 0 or config.hidden_weight > 0
        if distilled:
            model.eval()  # dropout is only noise where the targets are another network's outputs
        if self._replaced is not None and torch.is_grad_enabled():  # not in a validation
            tokens = self._replaced(inputs["input_ids"], self.state.global_step)
            inputs = {**inputs, "input_ids": tokens}
        outputs = model(**inputs, output_hidden_states=config.hidden_weight > 0)
        loss = self._divergence(inputs, outputs) if distilled else 0.0
        if config.label_weight > 0:
            loss = loss + config.label_weight * outputs.loss
        for price in penalties(model):
            loss = loss + price
        return (loss, outputs) if return_outputs else loss

    def _divergence(self, inputs: dict[str, Tensor], outputs: Any) -> Tensor:
        """Of the student's outputs from the teacher's: logits, and hidden states where they
        count."""
        config = self._recovery
        hidden = config.hidden_weight > 0
        with torch.no_grad(), self.accelerator.autocast():  # as the student computes
            targets = self._teacher(**inputs, output_hidden_states=hidden)
        mask = inputs.get("attention_mask")
        ours, theirs = (predictions(found.logits, mask) for found in (outputs, targets))
        loss = config.logits_weight * logit_loss(ours, theirs, config.temperature)
        if hidden:
            loss = loss + config.hidden_weight * hidden_loss(
                outputs.hidden_states, targets.hidden_states, mask
            )
        return loss


def logit_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) at temperature T, the mean of rows (predictions, classes)."""
    student, teacher = student.float(), teacher.float()
    return temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, dim=-1),
        F.log_softmax(teacher / temperature, dim=-1),
        log_target=True,
        reduction="batchmean",
    )


def hidden_loss(
    student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], mask: Tensor | None
) -> Tensor:
    """Mean over layers of ||s - t||^2 / ||t||^2 on the tokens that `mask` (batch, tokens) keeps.

    A layer of a student with fewer layers stands for several of the teacher's: it is compared with
    the last of them. The first state is that of the embeddings.
    """
    losses, layers = [], (len(teacher) - 1) // (len(student) - 1)
    for s, t in zip(student, teacher[::layers], strict=True):
        s, t = predictions(s, mask).float(), predictions(t, mask).float()  # (kept tokens, hidden)
        losses.append((s - t).square().sum() / t.square().sum())
    return torch.stack(losses).mean()
