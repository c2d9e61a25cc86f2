"""Batches without a stage that sends them to a device."""


def sample(sampler):
    """The next batch of a sampler."""
    return sampler.batch(sampler.next().sent(sampler.rows.device))


def some_starts(starts, count, generator):
    """Observations ``[B, O]`` of one task."""
    return starts.observations(starts.draw(count, generator))
