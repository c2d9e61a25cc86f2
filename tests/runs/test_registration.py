"""The history of a registration: what is added, what is never changed, what is noticed."""

import json

import pytest

from fmbpo.errors import UserError
from fmbpo.runs.plan import PlannedRun, write_plan
from fmbpo.runs.registration import REGISTRATION, changes, digest, history, register

CONTENT = {"registration": {"margin": 0.03}, "cells": {"a": {"lam": 0.9}, "b": {"lam": 0.9}}}


def with_lam(*values):
    return {**CONTENT, "cells": {k: {"lam": v} for k, v in zip("ab", values, strict=True)}}


@pytest.fixture
def folder(tmp_path):
    """``folder(digest)``: a folder of the study ``s``."""

    def folder(name, study="s"):
        path = tmp_path / f"{study}__study__1__{name}"
        path.mkdir(exist_ok=True)
        return path

    return folder


def begin(root, run):
    (root / run).mkdir()
    (root / run / "config.json").write_text("{}")


def test_the_digest_is_that_of_the_content():
    turned = {key: CONTENT[key] for key in reversed(CONTENT)}
    assert digest(CONTENT) == digest(turned)
    # Computed once, with sha256sum: a registration of today must be recognised tomorrow.
    assert digest(CONTENT) == "6e95729a844154949d8fe8dae0b13197a317f06dac218190677b25a017c3602e"
    assert digest(with_lam(0.9, 0.95)) != digest(CONTENT)


def test_a_registration_before_the_first_run(folder, tmp_path):
    (first,) = register(folder("0"), "s", CONTENT, ["r1", "r2"])
    assert (first.runs, first.begun, first.changes) == (["r1", "r2"], [], [])
    assert first.sentence("Registered").endswith(
        f"UTC, before the first run (SHA-256 {digest(CONTENT)[:12]})"
    )
    begin(tmp_path, "r1")
    text = (folder("0") / REGISTRATION).read_text()
    assert register(folder("0"), "s", CONTENT, ["r1", "r2"]) == [first]
    assert (folder("0") / REGISTRATION).read_text() == text
    assert history(tmp_path, "s") == [first]
    assert history(tmp_path, "other") == history(tmp_path / "gone", "s") == []
    assert {path.name for path in tmp_path.iterdir()} == {"r1", folder("0").name}


def test_a_late_registration_says_so(folder, tmp_path):
    begin(tmp_path, "r2")
    (late,) = register(folder("0"), "s", CONTENT, ["r1", "r2"])
    assert "after 1 of 2 runs of the study had begun" in late.sentence("Registered")
    # Runs of the same study with other settings, which registered nothing, count too.
    begin(tmp_path, "r0")
    write_plan(folder("1", "t"), "t", [PlannedRun("r0", "a", "", [], [1], 1)])
    (other,) = register(folder("0", "t"), "t", CONTENT, ["r3"])
    assert other.begun == ["r0"]
    assert "after 1 run of the study had begun" in other.sentence("Registered")


def test_amendments_in_one_folder_and_in_another(folder, tmp_path):
    (first,) = register(folder("0"), "s", CONTENT, ["r1"])
    begin(tmp_path, "r1")
    wider = {**CONTENT, "registration": {"margin": 0.05}}
    register(folder("0"), "s", wider, ["r1"])
    register(folder("1"), "s", with_lam(0.5, 0.5), ["r2"])
    found = history(tmp_path, "s")
    assert found[0] == first
    assert [version.content for version in found] == [CONTENT, wider, with_lam(0.5, 0.5)]
    assert [version.changes for version in found] == [
        [],
        ["registration.margin: 0.03 -> 0.05"],
        ["registration.margin: 0.05 -> 0.03", "cell a and b: lam: 0.9 -> 0.5"],
    ]
    assert [version.begun for version in found] == [[], ["r1"], ["r1"]]
    assert found == history(tmp_path / "gone", "s", folder("1"))  # it has the whole history
    # What was registered before is known, in whichever folder.
    assert register(folder("0"), "s", CONTENT, ["r1"]) == found
    assert register(folder("2"), "s", CONTENT, ["r1"]) == found
    assert (folder("2") / REGISTRATION).is_file()


def test_what_changed():
    assert changes(CONTENT, CONTENT) == []
    assert changes(CONTENT, with_lam(0.9, 0.5)) == ["cell b: lam: 0.9 -> 0.5"]
    one = {**CONTENT, "cells": {"a": {"lam": 0.9}}}
    assert changes(CONTENT, one) == ["cell b: removed"]
    assert changes(one, CONTENT) == ["cell b: added"]
    assert changes(CONTENT, {**CONTENT, "registration": None}) == [
        'registration: {"margin": 0.03} -> null'
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0.03", "0.07", "does not match its SHA-256"),
        ('"begun"', '"began"', "unknown key"),
        ("{", "", "JSON"),
    ],
)
def test_an_edited_file_is_noticed(old, new, said, folder, tmp_path):
    register(folder("0"), "s", CONTENT, ["r1"])
    file = folder("0") / REGISTRATION
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=said) as raised:
        history(tmp_path, "s")
    assert str(file) in str(raised.value)
    with pytest.raises(UserError, match=said):
        register(folder("1"), "s", with_lam(0.1, 0.1), ["r1"])
    assert not (folder("1") / REGISTRATION).exists()


def test_the_file_can_be_read_by_others(folder):
    register(folder("0"), "s", CONTENT, ["r1"])
    content = json.loads((folder("0") / REGISTRATION).read_text())
    assert content["study"] == "s"
    assert content["versions"][0]["content"] == CONTENT


def test_a_file_without_versions_is_damaged(folder, tmp_path):
    register(folder("0"), "s", CONTENT, ["r1"])
    (folder("0") / REGISTRATION).write_text('{"study": "s", "versions": []}')
    with pytest.raises(UserError, match="it has no version"):
        history(tmp_path, "s")
