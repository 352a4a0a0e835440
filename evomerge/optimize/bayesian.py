"""Bayesian optimization of one loss whose measurements are noisy, by BoTorch.

A Gaussian process with the errors that are known of each loss, and one of a variance that it finds
itself for what no smooth function follows. The next point has the greatest expected improvement
over what the process holds the best measured point to be (qLogNEI: Letham et al., Bayesian
Analysis 2019; Ament et al., NeurIPS 2023). Points that are asked and not yet told are integrated
out. From `TRUST_FROM` numbers on it is looked for within a trust region (TuRBO: Eriksson et al.,
NeurIPS 2019).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from evomerge.optimize.base import BaseOptimizer
from evomerge.optimize.designs import space_filling
from evomerge.optimize.protocol import (
    OPTIMIZERS,
    Done,
    Failed,
    OptimizerConfig,
    Outcome,
    Point,
    Wait,
)
from evomerge.optimize.surrogate import Floats
from evomerge.optimize.trust_region import TrustRegion

TRUST_FROM = 12
"""Numbers of a genome from which on points are looked for within a trust region."""

MOST_POINTS = 400
"""Points that the process is fitted to: the best half, and the latest."""

NUM_SAMPLES = 128
"""Draws from the posterior that an expected improvement is averaged over."""

NUM_SCREENED = 256
"""Points at which the improvement is looked at before the best are moved uphill."""

NUM_CLIMBED = 4
"""How many of these are moved."""

MOST_STEPS = 60
"""Steps of each."""

LEAST_NOISE = 1e-6
"""Least variance of a loss, in units of the losses' variance: covariances stay invertible."""


class BayesianConfig(OptimizerConfig):
    """Noise-aware Bayesian optimization, for few candidates.

    Attributes:
        kind: The optimizer.
        design: Points before the first model; by default the start, the landmarks, and as many
            space-filling ones as the genome has numbers, four at least.
        max_outstanding: Points asked and not yet told, at most.
    """

    asks_landmarks: ClassVar[bool] = True
    takes_bits: ClassVar[bool] = False

    kind: Literal["bayesian"] = "bayesian"
    design: int | None = Field(default=None, ge=2)
    max_outstanding: int = Field(default=8, ge=1)


class Bayesian(BaseOptimizer[BayesianConfig, Point]):
    """See the module. Ask n is seeded by (seed, n) and follows from the tells before it.

    Several losses are one, weighted by preference; a loss with a limit is a process of its own, and
    the chance to stay within the limit counts. A failed point counts as the worst that was scored.
    """

    follows_record = True

    def _start(self) -> None:
        self.max_outstanding = self.config.max_outstanding
        preferences = np.array([goal.preference for goal in self.goals])
        self._preferences = preferences / preferences.sum()
        self._told: list[tuple[Point, Outcome]] = []
        self._fitted: tuple[int, Any] | None = None
        self._lengthscales: Floats = np.ones(len(self.box.low))
        self._first = self._design
        self.min_evaluations = len(self._first)

    def describe(self) -> str:
        """See `Optimizer`."""
        return f"a design of {len(self._first)} points, then a Gaussian process"

    def _propose(self) -> Point | Wait | Done:
        number = self._num_asked
        if number < len(self._first):
            return self._first[number]
        if sum(not isinstance(outcome, Failed) for _, outcome in self._told) < 2:
            # Nothing is known yet, or all has failed so far.
            rng = np.random.default_rng((self.seed, number))
            return self._points(rng.uniform(-1.0, 1.0, (1, len(self.box.low))))[0]
        with _botorch(self.seed, number):
            found = self._best_new(number)
        return Done("every point near the best is scored") if found is None else found

    def _observe(self, proposal: Point, outcome: Outcome) -> None:
        self._told.append((proposal, outcome))

    @cached_property
    def _design(self) -> list[Point]:
        """What is measured before the first model."""
        box, count = self.box, self.config.design
        known = [box.settle(point) for point in (box.start, *box.landmarks)]
        first = list(dict.fromkeys(known))
        if count is None:
            count = len(first) + max(4, len(box.low))
        filling = self._points(space_filling(len(box.low), max(2 * count, 16), self.seed))
        return list(dict.fromkeys([*first, *filling]))[:count]

    def _points(self, units: Floats) -> list[Point]:
        """Points of the box from such in [-1, 1], shape [n, d]."""
        low, high = np.asarray(self.box.low), np.asarray(self.box.high)
        scaled = np.clip(low + (units + 1.0) / 2.0 * (high - low), low, high)
        return [self.box.settle(tuple(map(float, point))) for point in scaled]

    def _units(self, points: list[Point]) -> Floats:
        """Points in [0, 1], shape [n, d]."""
        low, high = np.asarray(self.box.low), np.asarray(self.box.high)
        width = np.where(high > low, high - low, 1.0)
        return np.asarray((np.array(points).reshape(-1, len(low)) - low) / width)

    def _best_new(self, number: int) -> Point | None:
        """The point that promises most of those that were not asked; None: all were."""
        import torch
        from botorch.generation.gen import gen_candidates_scipy

        pending = list(self._outstanding.values())
        acquire, center = self._acquisition(pending, number)
        low, high = self._bounds(center)
        taken = {*pending, *(point for point, _ in self._told)}
        rng = np.random.default_rng((self.seed, number))
        points = self._new(self._screened(rng, low, high, center), taken)
        if not points:
            # A region may be smaller than one step of whole numbers.
            low, high = np.zeros(len(center)), np.ones(len(center))
            points = self._new(self._screened(rng, low, high, center), taken)
        if not points:
            return None
        with torch.no_grad():
            promised = acquire(torch.tensor(self._units(points))[:, None]).numpy()
        order = np.argsort(-promised, kind="stable")[:NUM_CLIMBED]
        starts = torch.tensor(self._units(points)[order])[:, None]
        whole = [place for place, is_whole in enumerate(self.box.integer) if is_whole]
        if len(whole) < len(self.box.low):
            # What is whole stays where each begins.
            for part in torch.split(starts, 1 if whole else len(starts)):
                moved, _ = gen_candidates_scipy(
                    part,
                    acquire,
                    lower_bounds=torch.tensor(low),
                    upper_bounds=torch.tensor(high),
                    fixed_features={place: float(part[0, 0, place]) for place in whole},
                    options={"maxiter": MOST_STEPS},
                )
                ends: Floats = moved.detach().numpy()[:, 0]
                points += self._new(ends, taken)
            with torch.no_grad():
                promised = acquire(torch.tensor(self._units(points))[:, None]).numpy()
        return points[int(np.argmax(promised))]

    def _new(self, units: Floats, taken: set[Point]) -> list[Point]:
        """Points of the box, from such in [0, 1], that were not asked."""
        points = self._points(2.0 * units - 1.0)
        return [point for point in dict.fromkeys(points) if point not in taken]

    def _screened(
        self, rng: np.random.Generator, low: Floats, high: Floats, center: Floats
    ) -> Floats:
        """Points of [0, 1]: over the bounds, and closer and closer about the best, shape [n, d]."""
        size = len(low)
        spread = low + (high - low) * rng.random((NUM_SCREENED // 2, size))
        reach = 0.5 * (high - low) * 10.0 ** -rng.uniform(0.3, 2.0, (NUM_SCREENED // 2, 1))
        near = center + reach * rng.standard_normal((NUM_SCREENED // 2, size))
        return np.asarray(np.clip(np.concatenate([spread, near]), low, high))

    def _bounds(self, center: Floats) -> tuple[Floats, Floats]:
        """Where points are looked for, in [0, 1]."""
        size = len(self.box.low)
        if size < TRUST_FROM:
            return np.zeros(size), np.ones(size)
        losses, errors = self._losses()
        region = TrustRegion(size, losses, errors, len(self._first))
        return region.bounds(center, self._lengthscales)

    def _losses(self) -> tuple[Floats, Floats]:
        """Combined losses in the order of their tells, and their known errors, shape [n]."""
        losses, errors = [], []
        for _, outcome in self._told:
            if isinstance(outcome, Failed):
                losses.append(math.nan)
                errors.append(0.0)
            else:
                own = outcome.design_errors or (0.0,) * len(outcome.losses)
                losses.append(float(self._preferences @ outcome.losses))
                errors.append(float(np.linalg.norm(self._preferences * own)))
        found = np.array(losses)
        return np.where(np.isnan(found), np.nanmax(found), found), np.array(errors)

    def _limited(self) -> list[int]:
        return [place for place, goal in enumerate(self.goals) if goal.limit is not None]

    def _acquisition(self, pending: list[Point], number: int) -> tuple[Any, Floats]:
        """The improvement that points promise, and the best measured one in [0, 1]."""
        import torch
        from botorch.acquisition.logei import qLogNoisyExpectedImprovement
        from botorch.acquisition.objective import LinearMCObjective
        from botorch.sampling.normal import SobolQMCNormalSampler

        if self._fitted is None or self._fitted[0] != len(self._told):
            with _botorch(self.seed, len(self._told)):
                self._fitted = len(self._told), self._fit()
        model, measured, limits = self._fitted[1]
        with torch.no_grad():
            means = model.posterior(measured).mean
        over = torch.zeros(len(measured), dtype=torch.float64)
        for column, limit in enumerate(limits, start=1):
            over = over + torch.clamp(means[:, column] - limit, min=0.0)
        least = torch.where(over > 0.0, over + 1e6, means[:, 0])
        center: Floats = measured[int(torch.argmin(least))].numpy()
        constraints = [_over(column, limit) for column, limit in enumerate(limits, start=1)]
        weights = torch.zeros(1 + len(limits), dtype=torch.float64)
        weights[0] = -1.0
        acquire = qLogNoisyExpectedImprovement(
            model,
            X_baseline=measured,
            sampler=SobolQMCNormalSampler(torch.Size([NUM_SAMPLES]), seed=number),
            objective=LinearMCObjective(weights),
            constraints=constraints or None,
            X_pending=torch.tensor(self._units(pending)) if pending else None,
            prune_baseline=True,
        )
        return acquire, center

    def _fit(self) -> tuple[Any, Any, list[float]]:
        """Processes of the combined loss and of limited ones, points, limits in their units."""
        import torch
        from botorch.models.model_list_gp_regression import ModelListGP

        losses, errors = self._losses()
        rows = self._used(losses)
        measured = torch.tensor(self._units([self._told[row][0] for row in rows]))
        columns, limits = [(losses[rows], errors[rows])], []
        for place in self._limited():
            own = np.array([_of(self._told[row][1], place) for row in rows])
            values = np.where(np.isnan(own[:, 0]), np.nanmax(own[:, 0]), own[:, 0])
            columns.append((values, own[:, 1]))
            unit = float(values.std()) or 1.0
            limits.append((float(self.goals[place].limit or 0.0) - float(values.mean())) / unit)
        models = [_process(measured, *column) for column in columns]
        lengths = models[0].covar_module.base_kernel.lengthscale
        self._lengthscales = lengths.detach().numpy()[0].astype(np.float64)
        return ModelListGP(*models), measured, limits

    def _used(self, losses: Floats) -> list[int]:
        """Which tells the processes are fitted to, ascending."""
        count = len(losses)
        if count <= MOST_POINTS:
            return list(range(count))
        latest = set(range(count - MOST_POINTS // 2, count))
        best = [int(row) for row in np.argsort(losses, kind="stable") if int(row) not in latest]
        return sorted([*latest, *best[: MOST_POINTS - len(latest)]])


def _over(column: int, limit: float) -> Callable[[Any], Any]:
    """By how much draws of a loss are over its limit."""
    return lambda values: values[..., column] - limit


def _of(outcome: Outcome, place: int) -> tuple[float, float]:
    """A loss and its known error; NaN of a failed point."""
    if isinstance(outcome, Failed):
        return math.nan, 0.0
    return outcome.losses[place], outcome.design_errors[place] if outcome.design_errors else 0.0


def _process(points: Any, values: Floats, errors: Floats) -> Any:
    """A fitted process of standardized values.

    Args:
        points: In [0, 1], shape [n, d].
        values: Shape [n].
        errors: Their known standard errors, shape [n].
    """
    import botorch
    import gpytorch
    import torch
    from botorch.exceptions.errors import ModelFittingError
    from botorch.models.utils import gpytorch_modules as modules
    from gpytorch.likelihoods import FixedNoiseGaussianLikelihood

    unit = float(values.std()) or 1.0
    scaled = torch.tensor((values - values.mean()) / unit)[:, None]
    noise = torch.tensor(np.maximum((errors / unit) ** 2, LEAST_NOISE))
    size = points.shape[1]
    kernel = gpytorch.kernels.ScaleKernel(
        modules.get_covar_module_with_dim_scaled_prior(ard_num_dims=size),
        outputscale_prior=gpytorch.priors.LogNormalPrior(0.0, 1.0),
    )
    kernel.outputscale = 1.0
    likelihood = FixedNoiseGaussianLikelihood(
        noise=noise,
        learn_additional_noise=True,
        noise_prior=gpytorch.priors.LogNormalPrior(-5.0, 1.0),
        noise_constraint=gpytorch.constraints.GreaterThan(1e-6),
    )
    likelihood.second_noise = math.exp(-5.0)
    model = botorch.models.SingleTaskGP(
        points, scaled, likelihood=likelihood, covar_module=kernel.double(), outcome_transform=None
    )
    try:
        botorch.fit_gpytorch_mll(gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model))
    except (ModelFittingError, ArithmeticError, RuntimeError, ValueError):
        # The prior's modes are where it began.
        model.eval()
    return model


@contextmanager
def _botorch(seed: int, number: int) -> Iterator[None]:
    """BoTorch without warnings, with draws of its own and exact solutions."""
    # It insists on some of its warnings, whatever filters say: they are kept by nobody.
    with warnings.catch_warnings(record=True):
        # Seconds to import, for those who use it.
        import gpytorch
        import torch

        with (
            torch.random.fork_rng(devices=[]),
            gpytorch.settings.max_cholesky_size(1 << 30),
        ):
            # torch.manual_seed would seed GPUs.
            own = np.random.SeedSequence((seed, number)).generate_state(1)[0]
            torch.default_generator.manual_seed(int(own))
            yield


OPTIMIZERS.add(BayesianConfig, Bayesian)
