"""Which cells are compared, with which weights, under which name."""

from hypothesis import given
from hypothesis import strategies as st

from fmbpo.compare.comparison import Cell
from fmbpo.compare.contrasts import contrasts

A, B = Cell("a", "p"), Cell("a", "q")
C, D = Cell("b", "p"), Cell("b", "q")


def named(cells, declared=None):
    return {one.name: one for one in contrasts(cells, declared)}


def test_what_an_incomplete_factorial_gives():
    assert set(named([A, B, C])) == {
        "world model: a - b (policy p alone)", "policy: p - q (world model a alone)",
    }  # fmt: skip
    assert set(named([A, D])) == set()
    assert set(named([A])) == set()
    three = named([A, B, Cell("a", "r")])
    assert set(three) == {"policy: p - q", "policy: p - r", "policy: q - r"}
    # Of a 2x3 factorial without one cell, one complete 2x2 part.
    five = named([A, B, C, D, Cell("a", "r")])
    assert [name for name in five if name.startswith("interaction")] == [
        "interaction: policy p - q, in world model a - in b"
    ]
    # Only where both policies are: the world model's mean must not enter the policy's effect.
    assert five["policy: p - r (world model a alone)"].weights == {A: 1.0, Cell("a", "r"): -1.0}


@given(st.permutations([A, B, C, D]))
def test_order_of_cells_is_nothing(cells):
    """Neither to the sign of an effect nor to its name: "p - q" is never "q - p"."""
    assert contrasts(cells) == contrasts([A, B, C, D])


def test_a_declaration_names_the_pairs_of_its_factor():
    """Four levels of one plugin, of which three pairs answer the question."""
    levels = ("flow", "flow_noise", "mlp", "tied")
    cells = [Cell(level, policy) for level in levels for policy in ("flow", "mlp")]
    declared = {
        "flow matching": ("world_model", "flow", "tied"),
        "depth": ("world_model", "tied", "mlp"),
        "stochasticity": ("world_model", "flow_noise", "flow"),
    }
    found = named(cells, declared)
    assert [name for name in found if not name.startswith("interaction")] == [
        "flow matching (world model: flow - tied)",
        "depth (world model: tied - mlp)",
        "stochasticity (world model: flow_noise - flow)",
        "policy: flow - mlp",  # all pairs of the factor that declares none
    ]
    assert sum(name.startswith("interaction") for name in found) == 3
    one = found["flow matching (world model: flow - tied)"]
    assert one.weights == {
        Cell("flow", "flow"): 0.5, Cell("flow", "mlp"): 0.5,
        Cell("tied", "flow"): -0.5, Cell("tied", "mlp"): -0.5,
    }  # fmt: skip
    assert (one.above, one.below) == ("flow ahead", "tied ahead")
    inside = found["interaction: policy flow - mlp, in world model flow - in tied"]
    assert inside.weights[Cell("flow", "flow")] == inside.weights[Cell("tied", "mlp")] == 1.0
    assert len(named(cells)) == 6 + 1 + 6


def test_a_declared_direction_may_be_against_the_alphabet():
    found = named([A, B], {"mine": ("policy", "q", "p"), "other": ("policy", "q", "z")})
    assert set(found) == {"mine (policy: q - p)"}
    assert found["mine (policy: q - p)"].weights == {B: 1.0, A: -1.0}
    assert found["mine (policy: q - p)"].pairs == [(B, A)]
