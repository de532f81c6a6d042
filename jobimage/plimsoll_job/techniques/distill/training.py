"""The training loop of distillation: AdamW by a recipe, one order of samples for one seed."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from plimsoll_api.spec import Distill
from plimsoll_job.checkpoints import Checkpoint, Checkpoints, read_tensors, tensor_writer
from plimsoll_job.errors import UserError
from plimsoll_job.ranks import Ranks
from plimsoll_job.scratch import HeldFile, Scratch
from plimsoll_job.techniques.distill.augment import augment
from plimsoll_job.techniques.distill.learner import Learner
from plimsoll_job.techniques.distill.recipe import Recipe, grouped
from plimsoll_job.techniques.distill.teacher import Teacher
from plimsoll_job.techniques.distill.terms import Knowledge
from plimsoll_job.techniques.observe import Batch

#: Where the best weights so far are, of a training that may stop early.
BEST_FILE = "best.safetensors"


@dataclass(frozen=True)
class TrainingSet:
    """What the student learns from, in the host's memory: inputs, the teacher's knowledge, labels and mask if any."""

    inputs: Batch
    teacher: Teacher
    labels: torch.Tensor | None
    #: Which tokens count, [samples, tokens], where some are padding.
    mask: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs[0])


@dataclass
class Course:
    """How a training went so far: optimizer steps, the mean of each term in each epoch, the held-out loss after it.

    Of an epoch that is not finished, how many of its batches are, and the sum of each term over their samples.
    """

    steps: int = 0
    curves: dict[str, list[float]] = field(default_factory=dict)
    held_out: list[float] = field(default_factory=list)
    best_epoch: int = 0
    batches: int = 0
    totals: list[float] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(next(iter(self.curves.values()), []))


class Training:
    """One training of a learner, which is changed in place; zeros of the parameters named in `sparse` stay zero.

    Each epoch draws the order of its samples and all else from a seed of its own, so that a training that goes on from
    a checkpoint ends with the same weights as one that was never stopped.
    """

    def __init__(
        self,
        learner: Learner,
        data: TrainingSet,
        settings: Distill,
        recipe: Recipe,
        *,
        seed: int,
        sparse: frozenset[str] = frozenset(),
        ranks: Ranks,
    ) -> None:
        self.course = Course()
        self._seed, self._ranks, self._device = seed, ranks, ranks.device
        self._learner, self._data, self._settings = learner.to(self._device), data, settings
        self._recipe = recipe
        self._joined = ranks.join(learner)
        self._weights = torch.tensor(settings.weights, device=self._device)
        self._masks = {name: learner.student.get_parameter(name).detach() != 0 for name in sparse}
        self._train, self._held_out = self._divide()
        self._steps = settings.epochs * len(split_samples(self._train, settings.batch_size))
        # In a file: beside the gradients and the moments it would be another model in memory.
        self._best: HeldFile | None = None
        self._within_epoch: Checkpoints | None = None
        #: The states of torch's generators within an epoch that was stopped.
        self._chance: dict[str, torch.Tensor] = {}
        self._optimizer = torch.optim.AdamW(grouped(learner, recipe.weight_decay), lr=recipe.learning_rate, fused=True)

    def run(self, on_epoch: Callable[[int, float], None], checkpoints: Checkpoints | None = None) -> Course:
        """Train to the end and return how it went.

        `on_epoch` hears the number of finished epochs and the mean loss of the last one.
        """
        if checkpoints is not None:
            self._restore(checkpoints)
            # What each of several processes has drawn is its own, and the first alone saves.
            self._within_epoch = checkpoints if self._ranks.world == 1 else None
        while self.course.epochs < self._settings.epochs and not self._stagnates():
            loss = self._train_epoch()
            _check_finite(loss, f"after epoch {self.course.epochs}")
            self._examine()
            if checkpoints is not None and self._ranks.rank == 0 and checkpoints.due():
                checkpoints.save(self._checkpoint())
            on_epoch(self.course.epochs, loss)
        # The model outlives the training, and would keep them.
        self._optimizer.zero_grad()
        self._optimizer.state.clear()
        if self._best is not None:
            self._learner.load_state_dict(read_tensors(self._best.path))
        self._learner.eval()
        return self.course

    def _divide(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the numbers of the samples to train on and of those held out."""
        samples = len(self._data)
        stopping = self._settings.early_stopping
        if stopping is None:
            return torch.arange(samples), torch.arange(0)
        held_out = max(1, round(samples * stopping.held_out.value))
        if held_out >= samples:
            raise UserError(
                f"spec.data.train: early stopping holds out {held_out} of {samples} samples, which leaves none to "
                "train on; give more samples, or leave earlyStopping out"
            )
        order = torch.from_numpy(np.random.default_rng([self._seed, 0]).permutation(samples))
        return order[held_out:].sort().values, order[:held_out].sort().values

    def _train_epoch(self) -> float:
        """Train one epoch, or the rest of one, and return the mean loss."""
        self._learner.train()
        order = self._train[shuffle(len(self._train), self._seed, self.course.epochs + 1, self._ranks.rank)]
        totals = torch.zeros(len(self._weights), dtype=torch.float64, device=self._device)
        if self.course.batches:
            totals += torch.tensor(self.course.totals, dtype=torch.float64, device=self._device)
            _set_chance(self._chance)
        for batch in split_samples(order, self._settings.batch_size)[self.course.batches :]:
            totals += self._step(batch)
            self.course.batches += 1
            if self._within_epoch is not None and self._within_epoch.due(within_epoch=True):
                self.course.totals = totals.tolist()
                _check_finite(sum(self.course.totals), f"within epoch {self.course.epochs + 1}")
                self._within_epoch.save(self._checkpoint())
        self.course.batches, self.course.totals = 0, []
        means = (self._ranks.add_up(totals) / len(order)).tolist()
        for kind, mean in zip(self._learner.terms, means, strict=True):
            self.course.curves.setdefault(kind, []).append(mean)
        return math.fsum(weight * mean for weight, mean in zip(self._settings.weights, means, strict=True))

    def _step(self, batch: torch.Tensor) -> torch.Tensor:
        """Take one step of the optimizer, and return the sum of each term over this process's samples."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.rate(self.course.steps, self._steps)
        self._optimizer.zero_grad()
        own = self._ranks.share(batch)
        totals = torch.zeros_like(self._weights, dtype=torch.float64)
        # Without a sample of its own a process still takes part in the sum of the gradients, with nothing.
        parts = split_samples(own, self._settings.micro_batch_size or len(batch)) if len(own) else [batch[:1]]
        for number, part in enumerate(parts):
            weight = len(part) / len(batch) if len(own) else 0.0
            # Gradients are exchanged once a step, with those of the last part.
            last = number == len(parts) - 1 or self._ranks.world == 1
            together = contextlib.nullcontext() if last else self._joined.no_sync()  # type: ignore[operator]
            with together, _known_statistics(self._learner, alone=len(part) == 1):
                values = self._joined(*self._take(part))
                # The mean over processes, of what each has of the batch's mean times their number, is the batch's mean.
                ((values * self._weights).sum() * weight * self._ranks.world).backward()
            totals += values.detach() * len(part) if len(own) else 0.0
        if self._recipe.max_grad_norm > 0:
            nn.utils.clip_grad_norm_(self._learner.parameters(), self._recipe.max_grad_norm)
        self._optimizer.step()
        self.course.steps += 1
        with torch.no_grad():
            for name, mask in self._masks.items():
                self._learner.student.get_parameter(name).mul_(mask)
        return totals

    def _take(
        self, chosen: torch.Tensor
    ) -> tuple[Batch, dict[str, Knowledge], torch.Tensor | None, torch.Tensor | None]:
        labels, mask, changed = self._data.labels, self._data.mask, None
        inputs = tuple(one[chosen] for one in self._data.inputs)
        if self._settings.augmentation is not None and self._learner.training:
            inputs = changed = tuple(augment(one, self._settings.augmentation) for one in inputs)
        return (
            tuple(one.to(self._device) for one in inputs),
            self._data.teacher.knowledge(chosen, changed),
            None if labels is None else labels[chosen].to(self._device),
            None if mask is None else mask[chosen].to(self._device),
        )

    def _examine(self) -> None:
        """Measure the loss on the samples held out, and keep the weights when they are the best so far."""
        stopping = self._settings.early_stopping
        if stopping is None:
            return
        self._learner.eval()
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        with torch.no_grad():
            for part in split_samples(self._held_out, self._settings.micro_batch_size or self._settings.batch_size):
                total += (self._learner(*self._take(part)) * self._weights).sum() * len(part)
        loss = (self._ranks.tell(total) / len(self._held_out)).item()
        _check_finite(loss, f"on the samples held out, after epoch {self.course.epochs}")
        best = self.course.held_out[self.course.best_epoch - 1] if self.course.best_epoch else math.inf
        self.course.held_out.append(loss)
        if loss < best - stopping.min_delta.value:
            self.course.best_epoch = self.course.epochs
            # The first process alone hands its model on.
            if self._ranks.rank == 0:
                self._best = _held(tensor_writer(self._learner.state_dict()))

    def _stagnates(self) -> bool:
        stopping = self._settings.early_stopping
        return stopping is not None and self.course.epochs - self.course.best_epoch >= stopping.patience

    def _checkpoint(self) -> Checkpoint:
        """Return all that the next epochs depend on."""
        tensors = {f"model/{name}": tensor for name, tensor in self._learner.state_dict().items()}
        for number, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{key}": tensor for key, tensor in state.items()}
        if self.course.batches:
            tensors |= {f"chance/{name}": state for name, state in _chance(self._device).items()}
        best = {} if self._best is None else {BEST_FILE: self._best.path}
        return Checkpoint(self.course.epochs, tensors, asdict(self.course), best, self.course.batches)

    def _restore(self, checkpoints: Checkpoints) -> None:
        """Bring learner and optimizer where the newest checkpoint left them, if there is one."""
        kept = checkpoints.newest()
        if kept is None:
            return
        parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "optimizer": {}, "chance": {}}
        for name, tensor in kept.tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            number, _, key = name.partition("/")
            moments.setdefault(int(number), {})[key] = tensor
        self._learner.load_state_dict(parts["model"])
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if (best := kept.files.get(BEST_FILE)) is not None:
            self._best = _held(partial(shutil.copyfile, best))
        self.course = Course(**kept.facts)
        self._chance = parts["chance"]


def _check_finite(loss: float, when: str) -> None:
    """FloatingPointError that tells when a loss is no number: nothing can be learned from there, or kept."""
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss} {when}")


def _chance(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of the generators that a training on the device draws from."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_chance(states: Mapping[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


@contextlib.contextmanager
def _known_statistics(module: nn.Module, *, alone: bool) -> Iterator[None]:
    """Have batch norm answer a sample that is alone by the statistics that it knows: that sample's say nothing."""
    norms = [one for one in module.modules() if alone and isinstance(one, _BatchNorm) and one.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


def _held(write: Callable[[Path], object]) -> HeldFile:
    scratch = Scratch()
    write(scratch.path / BEST_FILE)
    return HeldFile(scratch.path / BEST_FILE, scratch)


def shuffle(samples: int, seed: int, epoch: int, rank: int = 0) -> torch.Tensor:
    """Return the order of the samples in this epoch, and seed what else the epoch draws by chance, such as dropout.

    The order is that of all ranks; what else is drawn differs between them.
    """
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, 1 + rank]).generate_state(1)[0]))
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(samples))


def split_samples(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Return the batches; a last one of a single sample joins the one before, since batch norm cannot take it."""
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
