"""Tasks at the floor: which are, and which cannot be judged."""

from fmbpo.compare.comparison import OVERALL, Cell, CellResult, Estimate
from fmbpo.compare.floor import at_floor


def results(**cells):
    """``ap={"t": mean}``: one result for each cell and task."""
    return [
        CellResult(Cell(*name), task, [], [], Estimate(mean), Estimate(mean), 1, 1)
        for name, tasks in cells.items()
        for task, mean in tasks.items()
    ]


def test_the_best_cell_decides():
    """The planner leads the random policy by 400: the floor ends at 140."""
    references = {"random": dict.fromkeys("abc", 100.0), "planner": dict.fromkeys("abc", 500.0)}
    low, high = {"a": 139.9, "b": 139.9, "c": -3.0}, {"a": 90.0, "b": 140.0, "c": 20.0}
    found = results(ap=low | {OVERALL: 0.0}, bq=high)
    assert at_floor(found, references) == ["a", "c"]


def test_tasks_without_a_lead_of_the_planner_are_not_judged():
    found = results(ap=dict.fromkeys("abcd", 0.0))
    references = {"random": {"a": 5.0, "b": 5.0}, "planner": {"a": 5.0, "c": 900.0}}
    assert at_floor(found, references) == []
    assert at_floor(found, {}) == []
