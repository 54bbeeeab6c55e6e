"""What all tests share: Hypothesis profiles, and whether absent servers are failures."""

import os

from hypothesis import HealthCheck, settings

_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("ci", max_examples=100, print_blob=True, **_common)
settings.register_profile(
    "nightly", max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "2000")), print_blob=True, **_common
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser):
    parser.addoption(
        "--require-backends",
        action="store_true",
        help="fail, instead of skipping, where a server that a test needs is not there",
    )
