"""One entry per metric, which agrees with every record that ships and with what can be measured."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from evatok.evaluation import summary
from evatok.metrics import catalogue, perceptual
from evatok.storage import records


def test_no_two_metrics_share_a_spelling():
    spellings = [spelling for entry in catalogue.METRICS for spelling in entry.spellings if spelling != entry.scored]
    assert len(spellings) == len(set(spellings))


def test_records_and_catalogue_agree_on_unit_and_direction():
    seen = set()
    for record in records.query(records.REPOSITORY / "results" / "records", superseded=True):
        for name, metric in record.metrics.items():
            if name not in catalogue.names(catalogue.METRICS):
                continue
            entry = catalogue.of(name)
            seen.add(name)
            assert (metric.unit, metric.direction) == (entry.unit, entry.direction), f"{record.id}: {name}"
    assert seen >= {"psnr", "st_lpips_alex", "rfvd", "gfvd", "mean_tokens", "class_consistency"}


def test_everything_that_can_be_measured_is_catalogued():
    for name in (*summary.PER_CLIP, *summary.DISTRIBUTION, *summary.MOTION):
        assert catalogue.of(name).name == name
        assert catalogue.of(name).per == ("clip" if name in summary.PER_CLIP else "set")
    for scored in perceptual.METRICS[:-1]:
        assert catalogue.of(scored).scored == scored


@pytest.mark.parametrize(("name", "better"), [("psnr", 2.0), ("st-lpips", 1.0), ("st_lpips", 1.0), ("rfvd", 1.0)])
def test_quality_rises_with_quality(name, better):
    values = catalogue.quality(np.array([1.0, 2.0]), name)
    assert values.argmax() == [1.0, 2.0].index(better)


@pytest.mark.parametrize(
    "module", ["evatok.metrics.catalogue", "evatok.reporting.claims", "evatok.reporting.curve_claims"]
)
def test_what_only_reads_records_needs_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
