"""Batches of clips, loaded by this process or by others beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import DataLoader, Dataset

from avsbg.model.training.data import AvsBenchDataset, Batch, Sample, collate
from avsbg.model.training.errors import DatasetError


class _Guarded(Dataset["Sample | DatasetError"]):
    """Hands errors on as values: raised in another process, they would arrive wrapped in its traceback."""

    def __init__(self, dataset: AvsBenchDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Sample | DatasetError:
        try:
            return self.dataset[index]
        except DatasetError as error:
            return error


def _collate(samples: Sequence[Sample | DatasetError]) -> Batch | DatasetError:
    loaded = []
    for sample in samples:
        if isinstance(sample, DatasetError):
            return sample
        loaded.append(sample)
    return collate(loaded)


def load_batches(
    dataset: AvsBenchDataset, batches: Sequence[list[int]], *, workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """Load batches in their order.

    Args:
        dataset: a split.
        batches: the indices of each batch's clips.
        workers: processes that load; 0: this one.
        pin_memory: whether to put batches where a GPU fetches them fastest.

    Raises:
        DatasetError: of a clip that cannot be loaded.
    """
    loader = DataLoader(
        _Guarded(dataset),
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else it takes its seed from the random numbers that training draws from
    )
    for batch in loader:
        if isinstance(batch, DatasetError):
            raise batch
        yield batch
