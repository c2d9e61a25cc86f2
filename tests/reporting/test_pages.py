"""What the report says: every number, every warning, nothing that runs or loads."""

import csv
import io
import math
import re
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser

import attrs
import pytest
from synthetic import CELLS, HOSTILE, PLANNER, comparison, imported_section, main_section

from fmbpo.base.text import NONE
from fmbpo.compare.comparison import OVERALL, CellResult, Comparison, Estimate, Score
from fmbpo.reporting.pages import training
from fmbpo.reporting.pages.content import clean, decimal, significant
from fmbpo.reporting.pages.csv_files import ALL_TASKS, csv_files, csv_text
from fmbpo.reporting.pages.render import html, parts_of, picture_files, pictures
from fmbpo.reporting.pages.svg import styles

VOID = {"meta", "link", "img", "br"}
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"


@pytest.fixture(scope="module")
def made():
    return comparison()


@pytest.fixture(scope="module")
def parts(made):
    return parts_of(made)


@pytest.fixture(scope="module")
def text(made, parts):
    return html(made, parts)


def page(comparison):
    return html(comparison, parts_of(comparison))


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


class Reader(HTMLParser):
    """Every tag's attributes; complains about a tag that is not closed by its own end."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for key, value in attributes if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def estimates(section):
    for result in section.results:
        yield from ((result.mean, result.task), (result.iqm, result.task))
    for effect in section.effects:
        yield effect.difference, effect.task


def shown(estimate, digits):
    ends = (estimate.low, estimate.high)
    if None in ends:
        return decimal(estimate.value, digits), ""
    return decimal(estimate.value, digits), f"[{', '.join(decimal(x, digits) for x in ends)}]"


def test_the_page_is_whole(text):
    reader = Reader(text)
    assert [name for name, n in Counter(reader.ids).items() if n > 1] == []
    targets = [a["href"][1:] for _, a in reader.tags if a.get("href", "").startswith("#")]
    targets += re.findall(r"url\(#([^)]*)\)", text)
    assert targets
    assert set(targets) <= set(reader.ids)


def test_the_page_loads_and_runs_nothing_of_others(text):
    reader = Reader(text)
    for tag, attributes in reader.tags:
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            assert attributes.get(key, "#")[:5].startswith(("#", "data:")), (tag, attributes)
        assert not [key for key in attributes if key.startswith("on")]
    rest = re.sub(r"(?s)<script>.*?</script>", "", text)
    assert set(re.findall(r"[\w:]*//[^\s\"'<>]*", rest)) == {"http://www.w3.org/2000/svg"}
    assert [tag for tag, _ in reader.tags].count("script") == 1
    assert "@import" not in text


def test_figures_are_svg_with_words(parts, text):
    found = list(pictures(parts))
    # Differences, returns, profiles, four curves, operations,
    # errors, gradients; imported: differences and returns.
    assert len(found) == 12
    assert len({picture.name for picture in found}) == 12
    for picture in found:
        assert picture.svg in text
        root = ET.fromstring(picture.svg)
        assert root.get("role") == "img"
        ids = root.get("aria-labelledby").split()
        named = {element.get("id"): element for element in root[:2]}
        assert [named[i].tag.rpartition("}")[2] for i in ids] == ["title", "desc"]
        assert all(named[i].text for i in ids)
        assert picture.data.rows
        assert len(root.findall(".//{*}text")) > 4  # text is text
        # Only colours that follow the page, or fall back where there is none.
        assert not re.search(r"(?<!, )#[0-9a-f]{6}\b", picture.svg)
        assert "currentColor" in picture.svg
    for svg in picture_files(parts).values():
        ET.fromstring(svg)


def test_every_result_is_in_page_and_csv(made, text):
    files = {name: rows(content) for name, content in csv_files(made).items()}
    for section in made.sections:
        for estimate, task in estimates(section):
            number, interval = shown(estimate, 3 if task == OVERALL else 1)
            under = f" <small>{interval}" if interval else "</td>"
            assert f'data-value="{estimate.value}">{number}{under}' in text
        for effect in section.effects:
            assert effect.p is None or f'data-value="{effect.p}">{effect.p:.3f}<' in text
            if effect.improvement:
                assert f'data-value="{effect.improvement.value}"' in text
    results = [result for section in made.sections for result in section.results]
    assert len(results) == len(files["results.csv"]) == 28
    for row, result in zip(files["results.csv"], results, strict=True):
        assert row["task"] == (result.task or ALL_TASKS)
        assert row["unit"] == ("return" if result.task else "return / 1000")
        assert (row["world_model"], row["policy"]) == attrs.astuple(result.cell)
        ends = [result.mean, result.iqm]
        for name, one in zip(("mean", "iqm"), ends, strict=True):
            found = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
            assert found == ["" if x is None else str(x) for x in attrs.astuple(one)]
        assert row["pwm"] == ("" if result.pwm is None else str(result.pwm))
        assert int(row["seeds"]) == len(result.values)
        assert int(row["policies"]) == result.policies
        assert int(row["world_models"]) == result.world_models
        planned = result.world_models == 3 and result.task in PLANNER
        assert row["planner"] == (str(PLANNER[result.task]) if planned else "")
        assert row["protocol"] == "frozen"
        assert row["runs"]
        assert row["checkpoint"]
    effects = [effect for section in made.sections for effect in section.effects]
    for row, effect in zip(files["effects.csv"], effects, strict=True):
        assert float(row["difference"]) == effect.difference.value
        assert row["verdict"] == effect.verdict
        assert (row["scope"], row["reason"]) == (effect.scope, effect.reason)
        for name, one in (
            ("standard_error", effect.error), ("degrees_of_freedom", effect.freedom),
            ("p", effect.p),
        ):  # fmt: skip
            assert row[name] == ("" if one is None else str(one))
        assert row["improvement"] == (
            "" if effect.improvement is None else str(effect.improvement.value)
        )
        assert row["verdict"] in text


def test_every_seed_is_in_page_and_csv(made, text):
    found = rows(csv_files(made)["seeds.csv"])
    scores = [
        (record, task, seed, score)
        for section in made.sections
        for record in section.records
        for task, seeds in record.scores.items()
        for seed, score in seeds.items()
    ]
    assert len(scores) == len(found) == 4 * 4 * 3 - 1 + 2 * 3 * 3
    for row, (record, task, seed, score) in zip(found, scores, strict=True):
        assert (row["run"], row["task"], row["seed"]) == (record.name, task, seed)
        assert float(row["mean"]) == score.mean
        assert row["episodes"] == ("10" if score.returns else "")
        assert [float(x) for x in row["returns"].split()] == list(score.returns)
        assert row["source"] == record.source
        assert row["trained_in"] == score.world_model
        assert f'data-value="{score.mean}">{score.mean:.1f}<' in text


def test_places_in_the_working_directory_are_relative_to_it(made, tmp_path, monkeypatch):
    """So that a report can be published: it names no folder of its author."""
    (section, *_) = made.sections
    videos = {("t", "1"): str(tmp_path / "none.mp4")}
    here = [attrs.evolve(r, source=str(tmp_path / "runs" / f"r{i}"), videos=videos)
            for i, r in enumerate(section.records)]  # fmt: skip
    found = attrs.evolve(made, sections=[attrs.evolve(section, records=here)])
    monkeypatch.chdir(tmp_path)
    text = html(found, parts_of(found)) + "".join(csv_files(found).values())
    assert str(tmp_path) not in text
    assert "runs/r0" in text
    assert "none.mp4: not shown" in text
    monkeypatch.chdir("/")
    assert str(tmp_path).lstrip("/") in csv_files(found)["seeds.csv"]


def test_costs_errors_and_gates(made, text):
    section = made.sections[0]
    values = [value for errors in section.model_errors.values() for value in errors.values()]
    values += [x for found in section.progress for x, _ in found.points]
    for cost in section.costs:
        values += [cost.petaflops, cost.hours]
        assert all(f'data-value="{count}">{count}<' in text for count in cost.evaluations)
    for value in values:
        assert f'data-value="{value}">{significant(value)}<' in text
    assert "the decoded reward explains nothing on held-out episodes" in text
    assert "No failed health gate is recorded" in text  # of the imported section
    for record in section.records:
        assert record.checkpoint in text


def test_gradients(made, parts, text):
    """A table of means by cell, and a figure if there is more than one measurement."""
    section = made.sections[0]
    (block,) = [block for block in parts[0].blocks if block.title == "Gradients"]
    (table,) = block.tables  # the section has no effects on gradients
    for record, (cell, esnr, jacobian) in zip(section.records, table.rows, strict=True):
        assert cell.text == str(record.cell)
        series = record.gradients["esnr"].values()
        means = [sum(value for _, value in each) / len(each) for each in series]
        assert esnr.value == pytest.approx(sum(means) / len(means))
        assert esnr.note == f"{significant(min(means))} to {significant(max(means))}"
        (((_, value),),) = record.gradients["jacobian/latent_to_latent"].values()
        assert jacobian.value == value
    (picture,) = block.pictures
    assert picture.title == "signal-to-noise ratio (ESNR)"
    assert len(picture.data.rows) == 3 * len(section.records)
    assert "Jacobian" in text
    assert not [block for block in parts[1].blocks if block.title == "Gradients"]


def test_ratios_of_gradients(made):
    """Differences of logarithms are shown as ratios."""
    (section, *_), doubled = made.sections, Estimate(math.log(2), math.log(1.5), math.log(3))
    one, *others = [e for e in section.effects if e.task == OVERALL]
    effects = [attrs.evolve(one, difference=doubled), *others]
    found = attrs.evolve(section, gradients={"esnr": effects, "jacobian/latent_to_latent": [one]})
    (part,) = parts_of(attrs.evolve(made, sections=[found]))
    (block,) = [block for block in part.blocks if block.title == "Gradients"]
    table = block.tables[1]
    assert [row[0].text for row in table.rows] == [e.name for e in effects]
    assert (table.rows[0][1].text, table.rows[0][1].note) == ("2.00", "[1.50, 3.00]")
    assert table.rows[0][2].text == f"{math.exp(one.difference.value):.2f}"
    assert table.rows[1][2].text == NONE


def test_costs_of_unequal_work_say_so(made):
    section = made.sections[0]  # a cell lacks a seed of a task
    one = attrs.evolve(section, costs=section.costs[:1])
    for shown, want in ((section, True), (one, False)):
        (table,) = training.costs(shown, "s1", styles(section.cells)).tables
        assert any("Cells differ in tasks or seeds" in note for note in table.notes) is want


def test_warnings_stand_first(made, text):
    first = text.index('id="attention"')
    assert first < text.index("Basis of the numbers")
    for notes in made.attention.values():
        for note in notes:
            plain = note.replace(HOSTILE, ESCAPED)
            assert first < text.replace("&#39;", "'").index(plain)
    calm = attrs.evolve(made, attention={"": []}, sections=made.sections[1:])
    assert "nothing that needs attention" in page(calm)


def test_where_a_verdict_holds_is_said_beside_it(text):
    lead = " ".join(re.sub(r"<[^>]*>", "", text[: text.index('id="attention"')]).split())
    assert "Undecided in this one world model: flow policies returned 44 less" in lead
    assert "There is one world model of mlp: another of its kind may differ as much." in lead
    assert text.count("<small>in this one world model</small>") == 4
    assert '<strong class="open">No verdict</strong>' in text


def test_small_p_values(made):
    section = made.sections[1]
    tiny = [attrs.evolve(section.effects[0], p=1e-9), attrs.evolve(section.effects[2], p=0.0006)]
    found = page(attrs.evolve(made, sections=[attrs.evolve(section, effects=tiny)]))
    assert 'data-value="1e-09">&lt;0.001<' in found
    assert 'data-value="0.0006">0.001<' in found
    assert "p (Holm)" in found


def test_a_point_is_filled_only_with_a_verdict(made, parts):
    """On a single task an interval may exclude 0 without one."""
    (section,) = made.sections[1:]
    name = "policy: flow - mlp"
    without = [attrs.evolve(x, verdict="undecided") for x in section.effects if x.name == name]
    (old, new) = (
        parts_of(attrs.evolve(made, sections=[one]))[0].first.pictures[0].svg
        for one in (section, attrs.evolve(section, effects=without))
    )  # fmt: skip
    assert old != new  # nothing else in a picture depends on the verdict


def test_what_was_mixed_is_in_every_title(text):
    first = text.index('aria-label="frozen, original checkpoint"')
    part = text[first : text.index('id="attention"')] + text[text.index('<section id="s2"') :]
    captions = re.findall(r'(?s)<(?:figcaption|p class="caption")>.*?</(?:figcaption|p)>', part)
    assert len(captions) > 8
    assert sum("<figcaption" in caption for caption in captions) == 2
    assert all("mixed: conventions; data; budget" in caption for caption in captions)
    assert "mixed:" not in text[text.index('<section id="s1"') : text.index('<section id="s2"')]


def test_hostile_names_are_words(text):
    assert HOSTILE not in text
    assert text.count(ESCAPED) > 20


@pytest.mark.parametrize(
    ("escape", "bad", "good"),
    [
        (clean, "a\x00b\x1b[0m\ud800", "a�b�[0m�"),
        (csv_text, "=HYPERLINK(1)", "'=HYPERLINK(1)"),
        (csv_text, "-1 a", "'-1 a"),
        (csv_text, 'plain, "quoted"', 'plain, "quoted"'),
    ],
)
def test_escapes(escape, bad, good):
    assert escape(bad) == good


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(None, 1, "–"), (-0.04, 1, "0.0"), (-1.25, 2, "−1.25"), (math.nan, 1, "nan")],
)
def test_numbers(value, digits, text):
    assert decimal(value, digits) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (0.00123456, "0.00123"), (41.73, "41.7"), (8344.0, "8344"), (-2.5, "−2.50"),
        (3.2e9, "3.20e+09"), (4e-7, "4.00e−07"), (None, "–"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_rough_numbers(value, text):
    assert significant(value) == text


HEADINGS = ("Effects", "Learning curves", "Cost", "World models", "Videos")


def test_what_is_not_there_is_left_out(made, parts):
    bases = made.sections[0].bases
    bare = attrs.evolve(imported_section(), effects=[], title="bare", mixed=[], bases=bases)
    comparison = Comparison(name="bare", sections=[bare], attention={})
    (part,) = parts_of(comparison)
    assert [block.title for block in part.blocks] == ["Returns", "Health", "Provenance"]
    assert [picture.title for picture in part.first.pictures] == ["Returns by task"]
    found = html(comparison, [part])
    assert not [name for name in HEADINGS if f"<h3>{name}</h3>" in found]
    assert "No two cells can be compared." in found
    assert {block.title for block in parts[0].blocks} > set(HEADINGS) - {"Videos"}


def test_cells_without_curves_are_named():
    section = main_section()
    section = attrs.evolve(
        section,
        records=[*section.records[:3], attrs.evolve(section.records[3], curves={})],
    )
    found = training.curves(section, "s1", styles(section.cells))
    assert "No curves are recorded for flow × flow." in found.text
    assert "flow × flow" not in found.pictures[0].svg
    assert "mlp × flow" in found.pictures[0].svg


def test_tasks_beyond_the_shared_ones_are_marked(made):
    section = imported_section()
    section = attrs.evolve(section, tasks=section.tasks[:2])
    found = page(attrs.evolve(made, sections=[section]))
    assert "cheetah-run †" in found
    assert "not in every cell" in found
    assert "walker-stand †" not in found


def test_one_seed_and_numbers_that_are_none(made):
    nan = Estimate(math.nan, math.nan, math.nan)
    one = Estimate(500.0)
    results = [
        CellResult(CELLS[0], "a", ["1"], [500.0], one, one, 1, 0),
        CellResult(CELLS[1], "a", ["1"], [math.nan], nan, nan, 1, 0),
    ]
    record = attrs.evolve(imported_section().records[0], scores={"a": {"1": Score(500.0)}})
    section = attrs.evolve(
        imported_section(), results=results, effects=[], records=[record], cells=CELLS[:2],
        tasks=["a"],
    )  # fmt: skip
    found = page(attrs.evolve(made, sections=[section]))
    assert ">500.0</td>" in found
    assert ">nan <small>[nan, nan]</small></td>" in found


def test_videos_are_in_the_page(made, tmp_path, video, monkeypatch):
    section = main_section(video)
    film = tmp_path / "b.MP4"
    film.write_bytes(b"film")
    files = {
        ("t", "1"): str(film), ("t", "3"): str(tmp_path / "gone.mp4"),
    }  # fmt: skip
    records = [*section.records[:2], attrs.evolve(section.records[2], videos=files)]
    bare = attrs.evolve(section, records=records, results=[], effects=[], profiles=[], tasks=[])
    records[:] = [attrs.evolve(record, curves={}) for record in records]
    made = attrs.evolve(made, sections=[attrs.evolve(bare, model_errors={})])
    found = page(made)
    assert found.count('<img src="data:image/gif;base64,R0lGOD') == 2
    assert 'src="data:video/mp4;base64,ZmlsbQ=="' in found
    assert "gone.mp4: not shown: No such file or directory" in found
    monkeypatch.setattr("fmbpo.reporting.pages.training.LARGEST_VIDEO", 3)
    assert "data:video" not in page(made)
