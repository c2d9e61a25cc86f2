"""MuJoCo as the project imports it."""

from fmbpo.tasks.simulator import mujoco


def test_no_step_reads_the_clock():
    """Its package for Python sets a clock that it cannot unset; the timers say whether it is on."""
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    data = mujoco.MjData(model)
    for _ in range(10):
        mujoco.mj_step(model, data)
    step = data.timer[mujoco.mjtTimer.mjTIMER_STEP]
    assert step.number == 10
    assert step.duration == 0
