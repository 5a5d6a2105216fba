"""What steps at a rate say about an objective, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadtests.capacity.model import Counts, Judgement, Trial
from loadtests.capacity.objective import Objective
from loadtests.compare.measures import Layout
from loadtests.compare.reading import Run
from loadtests.statistics.blocks import Mean, Sample
from loadtests.statistics.difference import around
from loadtests.statistics.student import incomplete_beta

# Where dependence is looked for. Requests above a high limit come in bursts, which are as long as
# those above a lower one but so rare that a step may have none: the lower ones say how long.
DEPTHS = (0.5, 0.75, 0.9, 0.95)


def seen(run: Run, rate: float, seconds: float, objectives: Sequence[Objective]) -> Trial:
    """Reduce a run to what the search needs of it."""
    layout = Layout.of(run.summary.phases, run.observations)
    assigned = layout.assign(run.observations)
    counts = []
    for objective in objectives:
        values = [
            (block, value)
            for block, each in assigned
            if (value := objective.value(each)) is not None
        ]
        counts.append(_counts(values, len(layout.seconds), objective))
    phases = [phase for phase in run.summary.phases if phase.counted]
    achieved = sum(phase.sent for phase in phases) / (
        sum(phase.end_s - phase.start_s for phase in phases) or 1.0
    )
    return Trial(
        rate=rate,
        seconds=seconds,
        invalid=run.summary.invalid,
        achieved_rate=achieved,
        counts=counts,
    )


def excess(trials: Sequence[Trial], objectives: Sequence[Objective]) -> float:
    """The share of bad requests over the allowed one, of the objective that is missed most."""
    return max(
        _sums(trials, number)[1] / max(1, _sums(trials, number)[0]) / objective.allowed
        for number, objective in enumerate(objectives)
    )


def crossing(trials: Sequence[Trial], objectives: Sequence[Objective]) -> float:
    """The rate from which on more requests are bad than may be, by all steps together.

    Shares of bad requests grow with the rate: neighbours that do not are put together, weighed by
    their requests, until they do (isotonic regression, R. Barlow et al., 1972).
    """
    rates = sorted({trial.rate for trial in trials})
    groups: list[tuple[float, float, list[float]]] = []  # excess, weight, rates
    for rate in rates:
        of = [trial for trial in trials if trial.rate == rate]
        groups.append((excess(of, objectives), float(_sums(of, 0)[0]), [rate]))
        while len(groups) > 1 and groups[-2][0] >= groups[-1][0]:
            (one, weight, left), (other, more, right) = groups[-2:]
            mean = (one * weight + other * more) / max(1.0, weight + more)
            groups[-2:] = [(mean, weight + more, left + right)]
    below = [rate for over, _, group in groups if over <= 1 for rate in group]
    above = [rate for over, _, group in groups if over > 1 for rate in group]
    if below and above:
        return math.sqrt(max(below) * min(above))
    return max(below) if below else min(above)


def judge(
    trials: Sequence[Trial], objectives: Sequence[Objective], meets: float, fails: float
) -> Judgement:
    """Whether the rate of these steps meets all objectives. `meets` and `fails` are the chances
    that saying so is a mistake.

    The test is the exact binomial one (C. Clopper and E. Pearson, 1934) of so many requests as
    would be worth the same if they were independent.
    """
    if not trials:
        return "open"
    passed = True
    for number, objective in enumerate(objectives):
        size, bad = _sums(trials, number)
        if not size:
            return "open"
        worth = _dependence(trials, number)
        n, k = size / worth, bad / worth
        if k and incomplete_beta(k, n - k + 1, objective.allowed) <= fails / len(objectives):
            return "fails"
        passed &= incomplete_beta(n - k, k + 1, 1 - objective.allowed) <= meets
    return "meets" if passed else "open"


def needed(objectives: Sequence[Objective], chance: float) -> float:
    """How many independent requests without a bad one show it, as a mistake with that chance."""
    strictest = min(objective.allowed for objective in objectives)
    return math.log(chance) / math.log1p(-strictest)


def _counts(values: Sequence[tuple[int, float]], blocks: int, objective: Objective) -> Counts:
    sizes, bad = [0] * blocks, [0] * blocks
    sample = Sample(blocks)
    for block, value in values:
        sizes[block] += 1
        bad[block] += objective.bad(value)
        sample.add(block, value)
    if not values:
        return Counts(
            sizes=sizes, bad=bad, dependence=1.0, value=None, value_low=None, value_high=None
        )
    share = sum(bad) / len(values)
    worths = [_worth(Mean.of(bad, sizes), share, len(values))]
    value, low, high = share, None, None
    if objective.latency:
        limits = (sample.quantile(depth) for depth in DEPTHS)
        above = [sample.above(limit) for limit in limits if math.isfinite(limit)]
        worths += [_worth(mean, mean.value, len(values)) for mean in above]
        value = sample.quantile(1 - objective.allowed)
        if math.isfinite(value):
            down, up = around(sample, 1 - objective.allowed, 0.05)
            low, high = value * math.exp(-down), value * math.exp(up)
    return Counts(
        sizes=sizes,
        bad=bad,
        dependence=max(1.0, *worths),
        value=value if math.isfinite(value) else None,
        value_low=low,
        value_high=high if high is not None and math.isfinite(high) else None,
    )


def _worth(mean: Mean, share: float, count: int) -> float:
    """The variance over that of independent requests (L. Kish's design effect)."""
    independent = share * (1 - share) / count
    return mean.error**2 / independent if independent > 0 and math.isfinite(mean.error) else 1.0


def _sums(trials: Sequence[Trial], number: int) -> tuple[int, int]:
    counts = [trial.counts[number] for trial in trials]
    return sum(sum(c.sizes) for c in counts), sum(sum(c.bad) for c in counts)


def _dependence(trials: Sequence[Trial], number: int) -> float:
    """Of all steps together; no less than what their blocks say side by side."""
    counts = [trial.counts[number] for trial in trials]
    size, bad = _sums(trials, number)
    weighed = sum(c.dependence * sum(c.sizes) for c in counts) / size
    sizes = [each for c in counts for each in c.sizes]
    pooled = Mean.of([each for c in counts for each in c.bad], sizes)
    return max(1.0, weighed, _worth(pooled, bad / size, size))
