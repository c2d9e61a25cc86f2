"""Tests of shared batches have small ones, which a run would leave to its leader."""

import pytest

from fmbpo.training import pretraining


@pytest.fixture(autouse=True, scope="package")
def shared():
    """Every batch is shared; members are forked and inherit this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "SMALLEST", 1)
        yield
