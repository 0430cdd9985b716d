"""Hugging Face's Trainer as this project uses it: quiet, on CPU or GPU, resumable after a kill."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback

from compress.config import TrainingConfig
from compress.errors import ShrinkflowError
from compress.progress import Bar, progress_bar
from compress.rows import Batches
from compress.training_state import last_checkpoint, write_marker

LOGGED = ("loss", "learning_rate", "grad_norm")


@dataclass(frozen=True)
class Trained:
    """What training leaves behind: steps taken and the curve, a row per logged step."""

    steps: int
    loss: float
    curve: list[dict[str, float]]


class _Follow(TrainerCallback):
    """Shows progress, marks whole checkpoints and stops where the loss is no number."""

    def __init__(
        self,
        bar: Bar,
        refresh: Callable[[], object] | None,
        every: int,
        advance: Callable[[float], object] | None,
    ):
        self._bar, self._refresh, self._every = bar, refresh, every
        self._advance = advance
        self._note = ""

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if self._refresh is not None:
            self._refresh()

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if self._advance is not None:
            self._advance(state.global_step / state.max_steps)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self._bar.update(state.global_step, state.max_steps, self._note)
        if self._refresh is not None and state.global_step % self._every == 0:
            self._refresh()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        self._note = f"loss {loss:.3f}"
        if loss != loss:
            raise ShrinkflowError(
                f"the loss is nan at step {state.global_step}; lower the learning rate"
            )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.is_world_process_zero:
            write_marker(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


def train(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase | None,
    rows: Dataset[Any],
    config: TrainingConfig,
    *,
    work_dir: Path,
    seed: int,
    title: str,
    collator: Any = None,
    refresh: Callable[[], object] | None = None,
    refresh_steps: int = 0,
    advance: Callable[[float], object] | None = None,
    trainer_class: type[Trainer] = Trainer,
    parameters: list[dict[str, Any]] | None = None,
    validation: Dataset[Any] | None = None,
    patience: int = 0,
    **trainer_options: Any,
) -> Trained:
    """Trains `model` in place by `config`, resuming from the last whole checkpoint in `work_dir`.

    `refresh` runs at the start and after every `refresh_steps` steps; the checkpoint interval is a
    multiple of them, so that a resumed run does the same as one that was never stopped. `advance`
    is told before every step which part of them is done.
    `parameters` are optimizer groups with their own learning rates (default: one for all). With
    `validation` the loss on it is measured at every checkpoint: the model ends as the best of them,
    and training after `patience` without a better one.
    """
    evaluated, text = validation is not None, "input_ids" in rows[0]
    settings = arguments(config, work_dir, seed, refresh_steps, evaluated=evaluated, by_length=text)
    stop = [EarlyStoppingCallback(patience)] if evaluated else []
    optimizer = None
    if parameters is not None:
        optimizer = (torch.optim.AdamW, {"params": parameters, "lr": config.learning_rate})
    with progress_bar(title) as bar, quick_attention(model):
        trainer = trainer_class(
            model=model,
            args=settings,
            train_dataset=rows,
            data_collator=collator or (Batches(tokenizer) if tokenizer else None),
            eval_dataset=validation,
            callbacks=[_Follow(bar, refresh, refresh_steps, advance), *stop],
            optimizer_cls_and_kwargs=optimizer,
            **trainer_options,
        )
        trainer.remove_callback(PrinterCallback)
        with settings.main_process_first():  # the others find what it leaves
            newest = last_checkpoint(work_dir)
        if newest is None or not _take_over(trainer, newest):
            trainer.train(resume_from_checkpoint=newest)
        # What is scored after it computes as it will be loaded, not in mixed precision.
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    curve = [
        {"step": entry["step"], **{k: entry[k] for k in LOGGED if k in entry}}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    loss = curve[-1]["loss"] if curve else 0.0
    return Trained(steps=trainer.state.global_step, loss=loss, curve=curve)


def _take_over(trainer: Trainer, checkpoint: str) -> bool:
    """Takes weights and history of a training that had ended; False for a checkpoint on its way.

    Resumed from the last one, a Trainer would take a step more before it looks whether to stop.
    """
    state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
    asked = trainer.args.max_steps if trainer.args.max_steps > 0 else state.max_steps
    stopped = bool(state.best_model_checkpoint) and _has_stopped(state)
    if state.global_step < asked and not stopped:
        return False
    best = Path(state.best_model_checkpoint or checkpoint).name
    trainer._load_from_checkpoint(str(Path(checkpoint).parent / best))
    trainer.state = state
    return True


def _has_stopped(state: TrainerState) -> bool:
    """Whether training was to end at this checkpoint, before its last step."""
    callbacks: Any = state.stateful_callbacks or {}
    return bool(callbacks.get("TrainerControl", {}).get("args", {}).get("should_training_stop"))


def arguments(
    config: TrainingConfig,
    work_dir: Path,
    seed: int,
    refresh_steps: int,
    *,
    evaluated: bool = False,
    by_length: bool = True,
) -> TrainingArguments:
    """TrainingConfig in Hugging Face's words. `by_length`: batches hold rows of similar length,
    which means less padding."""
    every = config.checkpoint_steps
    if refresh_steps:
        every = max(1, round(every / refresh_steps)) * refresh_steps
    return TrainingArguments(
        output_dir=str(work_dir),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size // processes(),
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=config.warmup_fraction,
        bf16=has_bfloat16() if config.bf16 == "auto" else config.bf16,
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="group_by_length" if by_length else "random",
        seed=seed,
        full_determinism=torch.cuda.is_available(),
        save_steps=every,
        save_total_limit=2,
        eval_strategy="steps" if evaluated else "no",
        eval_steps=every,
        load_best_model_at_end=evaluated,
        metric_for_best_model="eval_loss" if evaluated else None,
        greater_is_better=False if evaluated else None,
        restore_callback_states_from_checkpoint=evaluated,
        logging_steps=10,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
    )


@contextmanager
def quick_attention(model: nn.Module) -> Iterator[None]:
    """On a processor, plain attention while `model` trains: a step of a small encoder takes three
    quarters of the time, as the fused kernel's backward pass is made for GPUs."""
    if torch.cuda.is_available() or not isinstance(model, PreTrainedModel):
        yield
        return
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def processes() -> int:
    """How many train together, as their launcher says: each takes an equal part of a batch."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the one of them that writes."""
    return os.environ.get("RANK", "0") == "0"


def has_bfloat16() -> bool:
    """Whether bfloat16 is fast here: it halves the time of a step then, and costs no score."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    capabilities: dict[str, Any] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # not in every torch
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
