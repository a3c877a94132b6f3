"""Section on calibration and abstention of MPT."""

from typing import Any

import numpy as np

from mpt_sentiment.evaluation.abstention import COVERAGE, accuracy_at_coverage, risk_coverage, risk_coverage_area
from mpt_sentiment.evaluation.calibration import calibration_report, share_interval
from mpt_sentiment.evaluation.calibration_plots import plot_reliability, plot_risk_coverage
from mpt_sentiment.reporting.context import MPT, Context, Plan
from mpt_sentiment.reporting.section import Section, Table, number, numbers, share, shares

TITLE = "Calibration and abstention"
ECE = "expected_calibration_error"
GOAL = 0.03
SHARE = f"{100 * COVERAGE:.0f} %"


def rows(plan: Plan) -> list[str]:
    """Return MPT, and MPT without rationales for the risk-coverage curve."""
    return [MPT, *(["mpt -rationales"] if {"rationales", "text"} <= {*plan.modalities} else [])]


def section(context: Context) -> Section:
    """Measure the probabilities of each run before and after its temperature."""
    context.probabilities(MPT)
    records, bins = [], {}
    for seed, after in context.runs[MPT].items():
        for state, probabilities in (("before", context.uncalibrated(MPT, seed)), ("after", after)):
            report = calibration_report(probabilities, context.labels, context.groups)
            bins[seed, state] = report.pop("reliability")
            records.append({"seed": seed, "state": state, **report, **abstention(probabilities, context.labels)})
    table = Table(
        "calibration",
        f"Probabilities of `mpt` before and after temperature scaling. {context.describe([MPT])} The temperature was "
        "fitted on validation posts, in each fold. ECE: 15 bins of equal mass; the measured value is above the true "
        f"one of a well calibrated model, so that the interval can lie below it. {SHARE} coverage: the most confident "
        f"{SHARE} of the posts are answered, Wilson interval.",
        records,
        {
            "Seed": lambda record: str(record["seed"]),
            "Temperature": lambda record: record["state"],
            "ECE (95 % interval)": lambda record: f"{number(record[ECE])} ({numbers(record['intervals'][ECE])})",
            "ECE if calibrated": lambda record: number(record["calibrated_error"]),
            "Brier": lambda record: number(record["brier"]),
            "NLL": lambda record: number(record["nll"]),
            "Accuracy, %": lambda record: share(record["accuracy"]),
            f"Accuracy at {SHARE} coverage, % (95 % interval)": lambda record: (
                f"{share(record['accuracy_at_coverage'])} ({shares(record['accuracy_at_coverage_interval'])})"
            ),
        },
    )
    seed = next(iter(context.runs[MPT]))
    curves = {
        title: risk_coverage(next(iter(context.runs[title].values())), context.labels)[1:]
        for title in context.present(rows(context.plan))
    }
    figures = [
        context.figure(
            "reliability",
            f"Accuracy by confidence before and after the temperature, seed {seed}.",
            plot_reliability,
            bins[seed, "after"],
            bins[seed, "before"],
        ),
        context.figure(
            "risk_coverage",
            "Error rate among the most confident posts, by their share; first seed of each row.",
            plot_risk_coverage,
            curves,
        ),
    ]
    return Section(TITLE, prose_of(records), [table], figures, notes=context.missing(rows(context.plan)))


def abstention(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Compute accuracy, that at the fixed coverage, and the area under the curve."""
    _, coverages, risks = risk_coverage(probabilities, labels)
    answered = round(coverages[np.searchsorted(coverages, COVERAGE - 1e-9)] * len(labels))
    accuracy = accuracy_at_coverage(probabilities, labels)
    return {
        "accuracy": float(1 - risks[-1]),
        "accuracy_at_coverage": accuracy,
        "accuracy_at_coverage_interval": share_interval(round(accuracy * answered), answered),
        "risk_coverage_area": risk_coverage_area(probabilities, labels),
    }


def prose_of(records: list[dict[str, Any]]) -> list[str]:
    """Say how large the calibration error is, and whether it is more than chance."""
    mean = {
        (state, name): float(np.mean([record[name] for record in records if record["state"] == state]))
        for state in ("before", "after")
        for name in (ECE, "calibrated_error", "accuracy", "accuracy_at_coverage")
    }
    after, chance = mean["after", ECE], mean["after", "calibrated_error"]
    reached = "reached" if after <= GOAL else "not reached"
    more = "no more than" if after <= chance else "more than"
    return [
        f"Means over seeds: the expected calibration error (ECE) is {number(mean['before', ECE])} before and "
        f"{number(after)} after the temperature. The goal of {GOAL} is {reached}. A perfectly calibrated model has "
        f"{number(chance)} on as many posts; the measured error is {more} that.",
        f"With the least confident {100 * (1 - COVERAGE):.0f} % of the posts left to a person, accuracy is "
        f"{share(mean['after', 'accuracy_at_coverage'])} % in place of {share(mean['after', 'accuracy'])} %.",
    ]
