"""What may be compared, what is refused, and what the reader's attention is called to."""

import attrs
import pytest
from scipy import stats

from fmbpo.compare.comparison import OVERALL, Cell
from fmbpo.compare.guard import compare
from fmbpo.compare.imported import import_results
from fmbpo.compare.reading import records_of
from fmbpo.errors import UserError
from fmbpo.runs.findings import Finding

TASKS = {"walker-stand": [950, 960, 970], "walker-walk": [900, 910, 920]}
OTHER = {"walker-stand": [951, 962, 973], "walker-walk": [905, 911, 922]}


@pytest.fixture(scope="module")
def known(repository, tmp_path_factory):
    """Records of the known results, by phase."""
    file = repository / "tests" / "golden" / "known_results.csv"
    records = records_of(import_results(file, tmp_path_factory.mktemp("known")))
    return {phase: [r for r in records if r.phase == phase] for phase in ("3", "7")}


SETTINGS = {
    "critic.count": 3, "policy.units": [1], "pretrain.seed": 42,
    "versions.world_model": "1", "versions.policy": "1",
}  # fmt: skip


def trained_in(record, model):
    scores = {
        task: {seed: attrs.evolve(score, world_model=model) for seed, score in seeds.items()}
        for task, seeds in record.scores.items()
    }
    return attrs.evolve(record, scores=scores)


def lines(comparison):
    return [line for lines in comparison.attention.values() for line in lines]


def test_phase_3_decides_nothing(known):
    """Three seeds on a task: on walker-stand p is 0.15 before the correction for three tasks."""
    found = compare(known["3"], name="phase 3")
    (section,) = found.sections
    effects = {e.task: e for e in section.effects}
    assert {e.verdict for e in effects.values()} == {"undecided"}
    assert {e.kind for e in section.effects} == {"policy"}
    assert not any(e.paired for e in section.effects)
    assert {e.scope for e in section.effects} == {"in this one world model"}
    a, b = ([r.scores["walker-stand"][s].mean for s in ("42", "123", "456")] for r in known["3"])
    assert effects["walker-stand"].p == pytest.approx(
        3 * stats.ttest_ind(a, b, equal_var=False).pvalue
    )
    assert any("One world model of mlp for all its policies" in x for x in lines(found))


def test_the_failed_replication_is_noticed(known):
    doubtful = [line for line in lines(compare(known["3"], name="")) if "replication" in line]
    assert doubtful == [
        f"mlp × {policy}: less than half of PWM's published return on cheetah-run ({mean} against "
        "414.5, TD-MPC2: 148.1): failed replication?"
        for policy, mean in (("mlp", 112.5), ("flow", 98.7))
    ]


def test_small_networks_replicate_nothing(record, basis):
    """Their returns on a task of MT30 are far from the published ones."""
    small, paper = (
        compare([record("mlp mlp", {"cheetah-run": [1.0]}, basis=attrs.evolve(basis, scale=scale))],
                name="")
        for scale in ("mini", "paper")
    )  # fmt: skip
    assert [any("failed replication" in x for x in lines(one)) for one in (small, paper)] == [
        False, True,
    ]  # fmt: skip


def test_phase_3_is_not_ranked_against_phase_7(known):
    with pytest.raises(UserError) as error:
        compare([*known["3"], *known["7"]], name="both")
    said = str(error.value)
    assert "protocol: frozen | finetuned; conventions: not stated | PWM's faulty reward" in said
    assert "--separate" in said
    assert "--allow-mixing" not in said  # both have seeds of the same cells and tasks
    assert "scale" not in said
    alone = [known["3"][0], known["7"][1]]
    with pytest.raises(UserError, match="--allow-mixing protocol --allow-mixing conventions"):
        compare(alone, name="both")


def test_side_by_side_nothing_is_ranked_between(known):
    found = compare([*known["3"], *known["7"]], name="both", separate=True)
    assert [len(s.records) for s in found.sections] == [2, 2]
    alone = compare(known["3"], name="phase 3").sections[0]
    assert found.sections[0] == alone
    assert "nothing is ranked between them" in found.attention[""][0]
    assert "Runs of several phases of the study: 3, 7." in found.attention[""]


def test_mixing_is_written_on_everything(record, basis):
    longer = attrs.evolve(basis, budget="9 x 4 x 4")
    records = [record("mlp mlp", TASKS), record("mlp flow", OTHER, basis=longer)]
    with pytest.raises(UserError, match=r"budget: 7 x 4 x 4 \| 9 x 4 x 4\n.*--allow-mixing budget"):
        compare(records, name="")
    found = compare(records, name="", mixing=["budget", "scale"])
    (section,) = found.sections
    assert "budget 7 x 4 x 4 | 9 x 4 x 4" in section.title
    assert section.title.endswith("MIXED: budget")  # the scale is the same
    assert [r.name for r in section.records] == [
        "run mlp mlp [budget: 7 x 4 x 4]", "run mlp flow [budget: 9 x 4 x 4]",
    ]  # fmt: skip
    assert len(section.bases) == 2
    assert any("although they differ in budget: 7 x 4 x 4 | 9 x 4 x 4" in x for x in lines(found))
    assert compare(records[:1], name="", mixing=["budget"]).sections[0].mixed == []
    with pytest.raises(UserError, match="'bugdet' to mix\n  -> did you mean 'budget'"):
        compare(records, name="", mixing=["bugdet"])


def test_which_run_counts(record, basis):
    one, other = record("mlp mlp", TASKS), record("mlp mlp", TASKS, seeds=[3, 4, 5], source="b")
    with pytest.raises(UserError, match=r"runs/mlp mlp and b: two runs of mlp × mlp .* seed 3"):
        compare([one, other], name="")
    longer = attrs.evolve(other, basis=attrs.evolve(basis, budget="9"))
    with pytest.raises(UserError, match="--separate instead of"):
        compare([one, longer], name="", mixing=["budget"])


def test_mixing_is_not_offered_where_no_one_could_say_which_counts(record, basis):
    """A study that varies the budget: the same cell, tasks and seeds on each."""
    longer = attrs.evolve(basis, budget="9 x 4 x 4")
    one, other = record("mlp mlp", TASKS), record("mlp mlp", OTHER, basis=longer)
    with pytest.raises(UserError, match="--separate") as error:
        compare([one, other], name="")
    assert "--allow-mixing" not in str(error.value)
    assert len(compare([one, other], name="", separate=True).sections) == 2
    more = record("mlp mlp", OTHER, basis=longer, seeds=[4, 5, 6])
    with pytest.raises(UserError, match="--allow-mixing budget"):
        compare([one, more], name="")


def test_pretraining_costs_once(record):
    """A cell in three runs that began with one world model, and one that began with another."""

    def run(seed, model, learning, pretraining):
        returns = {task: values[:1] for task, values in TASKS.items()}
        made = record("mlp mlp", returns, seeds=[seed], source=f"runs/{seed}",
                      petaflops=learning + pretraining, seconds=3600 * (learning + pretraining),
                      pretraining_petaflops=pretraining,
                      pretraining_seconds=3600 * pretraining)  # fmt: skip
        return trained_in(made, model)

    runs = [run(1, "a", 1.0, 8.0), run(2, "a", 2.0, 8.0), run(3, "b", 4.0, 16.0)]
    (cost,) = compare(runs, name="").sections[0].costs
    assert (cost.petaflops, cost.hours) == pytest.approx((7 + 24, 7 + 24))
    # Where each policy has its own world model, nothing is shared.
    apart = [trained_in(one, "") for one in runs]
    assert compare(apart, name="").sections[0].costs[0].petaflops == pytest.approx(7 + 32)


def test_returns_against_operations(record):
    """From the cost of the pretraining to that of all training, with the interval of the mean."""
    seeds = {"1": [0.0, 300.0, 850.0], "2": [0.0, 500.0, 950.0], "3": [100.0, 700.0, 1050.0]}
    curves = {t: {s: list(zip((0, 50, 200), y, strict=True)) for s, y in seeds.items()}
              for t in TASKS}  # fmt: skip
    curves["walker-walk"]["3"].insert(2, (100, 750.0))  # the others were not evaluated there
    whole = record("mlp mlp", TASKS, curves=curves, petaflops=10.0, pretraining_petaflops=2.0)
    other = record("mlp flow", TASKS, petaflops=10.0)
    (found,) = compare([whole, other], name="").sections[0].progress
    assert [x for x, _ in found.points] == [2.0, 4.0, 10.0]
    assert [y.value for _, y in found.points] == pytest.approx([0.1 / 3, 0.5, 0.95])
    last = found.points[-1][1]
    assert None not in (last.low, last.high)
    assert last.low < 0.95 < last.high
    without = attrs.evolve(whole, petaflops=None)
    assert not compare([without, other], name="").sections[0].progress


def test_each_of_several_world_models_costs_once(record):
    """Two runs share one of their world models; each pretraining cost 4."""
    whole = record("mlp mlp", TASKS, models="replicated", seeds=[1, 2], petaflops=1 + 8,
                   pretraining_petaflops=8)  # fmt: skip
    more = record("mlp mlp", {"cheetah-run": [300, 400]}, models="replicated", seeds=[2, 3],
                  source="more", petaflops=2 + 8, pretraining_petaflops=8)  # fmt: skip
    (cost,) = compare([whole, more], name="").sections[0].costs
    assert cost.petaflops == pytest.approx(3 + 3 * 4)


def test_runs_of_one_cell_are_put_together(record):
    whole = record("mlp mlp", TASKS)
    parts = [
        record("mlp mlp", {t: values[:2] for t, values in TASKS.items()}),
        record("mlp mlp", {t: values[2:] for t, values in TASKS.items()}, seeds=[3], name="more"),
    ]
    assert (
        compare(parts, name="").sections[0].results == compare([whole], name="").sections[0].results
    )


def test_numbers_of_a_section(record):
    (section,) = compare(
        [record("mlp mlp", TASKS, petaflops=2.0, seconds=7200.0, hardware="cuda",
                evaluations=(7, 1)),
         record("mlp flow", {**OTHER, "cheetah-run": [500, 600, 700]}, model_errors={1: 0.5})],
        name="",
    ).sections  # fmt: skip
    assert section.cells == [Cell("mlp", "mlp"), Cell("mlp", "flow")]
    assert section.tasks == ["walker-stand", "walker-walk"]
    assert section.world_models == {"mlp": 0}
    results = {(str(r.cell), r.task): r for r in section.results}
    assert ("mlp × mlp", "cheetah-run") not in results
    assert results["mlp × flow", "cheetah-run"].mean.value == pytest.approx(600)
    overall = results["mlp × flow", OVERALL]
    assert overall.mean.value == pytest.approx((962 + 2738 / 3) / 2000)  # without cheetah-run
    assert overall.values == pytest.approx([0.928, 0.9365, 0.9475])
    assert (overall.pwm, overall.tdmpc2) == pytest.approx((0.990595, 0.984069))
    assert [e.task for e in section.effects] == ["walker-stand", "walker-walk", OVERALL]
    cost = section.costs[0]
    assert (cost.petaflops, cost.hours, cost.hardware) == (2.0, 2.0, "cuda")
    assert cost.evaluations == (7, 1)
    assert section.costs[1].petaflops is section.costs[1].evaluations is None
    assert section.model_errors == {"mlp": {1: 0.5}}


def test_policies_are_counted_by_world_model(record):
    """Seeds 2 and 2.1 are policies in one world model."""
    seeds, returns = ["1", "2", "2.1"], {t: values[:2] for t, values in OTHER.items()}
    records = [
        record("mlp mlp", TASKS, models="replicated", seeds=seeds, references={"random": {"a": 1}}),
        record("mlp flow", returns, models="replicated", seeds=["2", "3"],
               references={"random": {"a": 4, "b": 3}}),
        record("flow mlp", OTHER, models="one"),
    ]  # fmt: skip
    (section,) = compare(records, name="").sections
    assert section.world_models == {"mlp": 3, "flow": 1}
    assert section.references == {"random": {"a": 2.5, "b": 3}}
    counts = {(str(r.cell), r.task): (r.policies, r.world_models) for r in section.results}
    assert counts["mlp × mlp", "walker-stand"] == (3, 2)
    assert counts["mlp × mlp", OVERALL] == (6, 2)
    assert counts["mlp × flow", OVERALL] == (4, 2)
    assert counts["flow × mlp", OVERALL] == (6, 1)


def test_profile_by_hand(record):
    (profile,) = compare(
        [record("mlp mlp", {"walker-stand": [100, 500, 900], "walker-walk": [300, 300, 300]})],
        name="",
    ).sections[0].profiles  # fmt: skip
    at = dict(zip(profile.thresholds, profile.share, strict=True))
    assert [at[x] for x in (0.0, 0.1, 0.28, 0.3, 0.5, 0.88, 0.9, 1.0)] == pytest.approx(
        [1, 5 / 6, 5 / 6, 2 / 6, 1 / 6, 1 / 6, 0, 0]
    )
    for share, low, high in zip(profile.share, profile.low, profile.high, strict=True):
        assert 0 <= low <= share <= high <= 1
    assert profile.low[15] == 0 < profile.high[15]


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"returns": {"walker-stand": OTHER["walker-stand"]}}, "has no walker-walk"),
        ({"returns": {t: v[:2] for t, v in OTHER.items()}}, "lacks seeds of walker-stand: 3."),
        ({"returns": {t: v[:1] for t, v in OTHER.items()}}, "One seed on a task"),
        ({"returns": TASKS}, "Identical returns in every episode: mlp × mlp (walker-stand, seed 1)"
         " and mlp × flow (walker-stand, seed 1); mlp × mlp (walker-stand, seed 2)"),
        ({"episodes": 9}, "numbers of episodes: 2 in run mlp mlp; 9 in run mlp flow"),
        ({"episodes": None}, "Imported without the number of episodes: run mlp flow"),
        ({"health": [Finding("g", "it is broken", "R² 0", "a/1")]},
         "run mlp flow: it is broken: a/1 (R² 0)."),
        ({"settings": {**SETTINGS, "critic.count": 5}}, "the factors: critic.count: 3 | 5."),
        ({"settings": {**SETTINGS, "policy.units": [2]}}, "the factors: policy.units: [1] | [2]."),
        ({"settings": {**SETTINGS, "pretrain.seed": 7}}, "the factors: pretrain.seed: 42 | 7."),
        # Both have the same world model, so what is its own must not differ either.
        ({"settings": {**SETTINGS, "versions.world_model": "2"}}, "versions.world_model: "),
        ({"phase": "9"}, "several phases of the study: 8, 9"),
    ],
)  # fmt: skip
def test_attention(record, change, want):
    first = record("mlp mlp", TASKS, settings=SETTINGS)
    plain = compare([first, record("mlp flow", OTHER)], name="")
    assert plain.attention == {}
    other = record("mlp flow", **{"returns": OTHER, **change})
    assert any(want in line for line in lines(compare([first, other], name="")))


def test_what_a_factor_brings_with_it_is_no_difference(record):
    """A plugin's own settings and its version; but nothing shared."""
    brought = {"world_model.solver": "heun", "policy.gate": True, "versions.world_model": "2",
               "versions.policy": "2"}  # fmt: skip
    records = [record("mlp mlp", TASKS, settings=SETTINGS),
               record("flow flow", OTHER, settings={**SETTINGS, **brought})]  # fmt: skip
    assert not any("beyond the factors" in line for line in lines(compare(records, name="")))
    other = {**SETTINGS, **brought, "policy.units": [2], "pretrain.seed": 7}
    records[1] = attrs.evolve(records[1], settings=other)
    assert (
        "Runs differ beyond the factors: policy.units: [1] | [2]; pretrain.seed: 42 | 7."
        in lines(compare(records, name=""))
    )


def test_what_is_shared_is_flagged_and_not_what_is_replicated(record):
    one, other = (
        [record("mlp mlp", TASKS, models=models), record("mlp flow", OTHER, models=models)]
        for models in ("one", "replicated")
    )
    assert lines(compare(other, name="")) == []
    assert lines(compare(one, name="")) == [
        "One world model of mlp for all its policies: no verdict on world models or interactions, "
        "and verdicts on policies hold in this one world model."
    ]
    more = record("flow mlp", {t: [x + 0.25 for x in v] for t, v in TASKS.items()},
                  models="replicated")  # fmt: skip
    assert lines(compare([*one, more], name="")) == lines(compare(one, name=""))
    fewer = record("mlp flow", OTHER, seeds=[1, 2, 4], models="replicated")
    assert any(
        "The policies in mlp did not all meet the same world models (mlp × mlp 3, mlp × flow 3 of "
        "4)" in line
        for line in lines(compare([other[0], fewer], name=""))
    )


def test_declared_contrasts_are_the_effects(record):
    records = [record(f"{level} mlp", TASKS, models="replicated") for level in ("a", "b", "c")]
    declared = {"what matters": ("world_model", "b", "a"), "elsewhere": ("world_model", "b", "x")}
    found = compare(records, name="", declared=declared)
    assert {e.name for e in found.sections[0].effects} == {"what matters (world model: b - a)"}
    assert found.attention[""] == ["The declared contrast 'elsewhere' (b - x) has no runs of x."]
    assert len({e.name for e in compare(records, name="").sections[0].effects}) == 3


def test_budgets_across_sections(record, basis):
    longer = attrs.evolve(basis, budget="9 x 4 x 4")
    records = [record("mlp mlp", TASKS), record("mlp flow", OTHER, basis=longer)]
    found = compare(records, name="", separate=True)
    assert "Budgets differ between sections: 7 x 4 x 4 | 9 x 4 x 4." in found.attention[""]
    assert [s.effects for s in found.sections] == [[], []]
