"""The search itself, by optuna: what to try next, which trials to end early, and what mattered.

Settings are drawn by a tree-structured Parzen estimator (Bergstra et al., "Algorithms for Hyper-Parameter Optimization",
2011), over all settings together, after some trials at random; the first trial has the recipe's own. Trials are ended by the
median rule (Golovin et al., "Google Vizier", 2017): where the best validation so far is worse than the median of the
finished trials at that step. Successive halving would need rungs and tens of trials to fill them; the median needs no
setting and keeps half. The rest of a schedule decides much of a training, so none ends in its first third.

Every draw is seeded by (seed, number of the trial) and depends on the trials before alone, so a search that was killed draws
what it would have drawn. Trials enter the file whole: drawn in memory first, then added in one transaction.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import URL

from medssl.recipes import parse
from medssl.tuning.space import Range, Space

RANDOM = 8  # trials before the draws follow what was found
FINISHED = 5  # trials that must be finished before one is ended early
TOLD = 5  # finished trials from which on it is said what mattered
Direction = Literal["maximize", "minimize"]
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Search:
    """A search in a file; trials are known by their numbers, 0, 1, ..."""

    def __init__(self, file: Path, space: Space, higher_is_better: bool, steps: int, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.steps, self.seed = space, steps, seed
        self.direction: Direction = "maximize" if higher_is_better else "minimize"
        self.distributions = {name: _distribution(values) for name, values in space.items()}
        self.study = optuna.create_study(
            storage=URL.create("sqlite", database=str(file)).render_as_string(),
            study_name="medssl tune",
            direction=self.direction,
            pruner=optuna.pruners.MedianPruner(FINISHED, n_warmup_steps=steps // 3),
            load_if_exists=True,
        )

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, in the order of their numbers."""
        return self.study.get_trials(deepcopy=False)

    def running(self) -> list[int]:
        """The trials that have not ended: those being made, and after a stop those to go on with."""
        return [trial.number for trial in self.trials if trial.state not in ENDED]

    def begin(self, own: Mapping[str, Any]) -> int:
        """Draw the settings of another trial and enter it; the first takes `own` values where it has some."""
        trials = self.trials
        seed = int(np.random.SeedSequence([self.seed, len(trials)]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM, multivariate=True, constant_liar=True)
        memory = optuna.create_study(direction=self.direction, sampler=sampler)
        memory.add_trials([_as_learned(trial) for trial in trials])
        if not trials:
            memory.enqueue_trial(dict(own))
        drawn = memory.ask(self.distributions).params
        values = {
            name: axis.rounded(drawn[name]) if isinstance(axis, Range) else drawn[name] for name, axis in self.space.items()
        }
        self.study.add_trial(create_trial(state=TrialState.RUNNING, params=values, distributions=self.distributions))
        return len(trials)

    def settings(self, number: int) -> dict[str, Any]:
        """The settings of a trial by name, in the order of the space."""
        params = self.trials[number].params
        return {name: params[name] if isinstance(axis, Range) else parse(params[name]) for name, axis in self.space.items()}

    def report(self, number: int, step: int, value: float) -> bool:
        """Note a validation; gives whether the trial should end. One that was noted before is judged again."""
        known = self.trials[number]
        trial = optuna.trial.Trial(self.study, known._trial_id)
        if step not in known.intermediate_values:
            trial.report(value, step)
        elif step < max(known.intermediate_values):
            return False  # it was let on then
        return step < self.steps and trial.should_prune()

    def end(self, number: int, state: TrialState, value: float | None = None, reason: str = "") -> None:
        """Note how a trial ended."""
        if reason:
            optuna.trial.Trial(self.study, self.trials[number]._trial_id).set_user_attr("reason", reason)
        self.study.tell(number, value if state == TrialState.COMPLETE else None, state=state)

    def best(self) -> int | None:
        """The trial with the best value, the first of equal ones; None while none is finished."""
        finished = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        sign = -1 if self.direction == "maximize" else 1
        return min(finished, key=lambda trial: sign * (trial.value or 0.0)).number if finished else None

    def importance(self) -> dict[str, float]:
        """How much of the variance of the finished trials each setting explains (fANOVA, Hutter et al. 2014), of 1.

        Empty where too few are finished to tell, or all are equal.
        """
        values = [trial.value for trial in self.trials if trial.state == TrialState.COMPLETE]
        if len(values) < TOLD or len(set(values)) < 2:
            return {}
        found = get_param_importances(self.study, evaluator=FanovaImportanceEvaluator(seed=0))
        return {name: float(share) for name, share in found.items() if math.isfinite(share)}


def _distribution(values: Any) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(values.words)
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _as_learned(trial: FrozenTrial) -> FrozenTrial:
    """A trial as the next draw knows it: a failed one, which optuna would forget, is worse than all others."""
    failed = trial.state == TrialState.FAIL
    return create_trial(
        state=TrialState.PRUNED if failed else trial.state,
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values={} if failed else trial.intermediate_values,
    )
