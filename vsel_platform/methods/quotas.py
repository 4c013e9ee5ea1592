"""Quotas: in which groups rows compete, and what share of the budget each group gets."""

import numpy as np

from vsel_platform.methods.api import Floats, Groups, Options, Quota, Signals


def one_group(signals: Signals, scores: Floats, options: Options) -> Groups:
    """All rows compete with each other."""
    return Groups(np.zeros(len(scores), np.int64), ["all"], [1.0])


def by_task(signals: Signals, scores: Floats, options: Options) -> Groups:
    """Rows compete inside their task; each task keeps its share of the rows."""
    names = sorted(set(signals.tasks))
    number = {name: i for i, name in enumerate(names)}
    labels = np.fromiter((number[task] for task in signals.tasks), np.int64, len(signals.tasks))
    return Groups(labels, names, np.bincount(labels, minlength=len(names)).astype(float).tolist())


def equal_tasks(signals: Signals, scores: Floats, options: Options) -> Groups:
    """Rows compete inside their task; each task gets the same share, as far as it has the rows."""
    groups = by_task(signals, scores, options)
    return Groups(groups.labels, groups.names, [1.0] * len(groups.names))


QUOTAS = (
    Quota("none", one_group, "All rows compete with each other."),
    Quota("task", by_task, "Every task keeps its share of the rows."),
    Quota("equal_tasks", equal_tasks, "Every task gets the same share, as far as it has the rows."),
)
