import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmbpo.config import toml
from fmbpo.errors import UserError


def refusal(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert caught.value.where
    assert caught.value.remedy
    return str(caught.value)


def test_tables_merge_values_and_arrays_replace(write):
    write("base/a.toml", "x = 1\n[t]\na = [1, 2, 3]\nb = 1\n")
    path = write("top.toml", 'extends = ["base/a.toml"]\n[t]\na = [9]\nc = 3\n')
    document = toml.read(path)
    assert document.tree == {"x": 1, "t": {"a": [9], "b": 1, "c": 3}}
    assert document.origin == {
        "x": "base/a.toml",
        "t": "base/a.toml",
        "t.a": "top.toml",
        "t.b": "base/a.toml",
        "t.c": "top.toml",
    }


def test_later_wins_and_the_file_wins_over_what_it_extends(write):
    write("a.toml", "x = 1\ny = 1\nz = 1\n")
    write("b.toml", "y = 2\nz = 2\n")
    path = write("c.toml", 'z = 3\nextends = ["a.toml", "b.toml"]\n')
    assert toml.read(path).tree == {"x": 1, "y": 2, "z": 3}


def test_a_file_reached_twice_counts_once_at_its_first_place(write):
    write("root.toml", "x = 0\n")
    write("a.toml", 'extends = ["root.toml"]\nx = 1\n')
    write("b.toml", 'extends = ["root.toml"]\ny = 2\n')
    path = write("c.toml", 'extends = ["a.toml", "b.toml"]\n')
    assert toml.read(path).tree == {"x": 1, "y": 2}


def test_paths_are_relative_to_the_file_that_has_them(write):
    write("base/deep/a.toml", "x = 1\n")
    write("base/b.toml", 'extends = ["deep/a.toml"]\n')
    assert toml.read(write("c.toml", 'extends = ["base/b.toml"]\n')).tree == {"x": 1}


def test_a_link_extends_what_its_file_extends(write, tmp_path):
    write("base/a.toml", "x = 1\n")
    file = write("deep/c.toml", 'extends = ["../base/a.toml"]\ny = 2\n')
    link = tmp_path / "mine" / "here" / "link.toml"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../deep/c.toml")
    assert toml.read(link).tree == toml.read(file).tree == {"x": 1, "y": 2}
    assert toml.read(link).origin == {"x": "base/a.toml", "y": "mine/here/link.toml"}
    (tmp_path / "base" / "a.toml").rename(tmp_path / "base" / "b.toml")
    text = refusal(toml.read, link)
    assert "link.toml, a link to deep/c.toml: extends: no such file: base/a.toml" in text
    assert "did you mean 'b.toml'?" in text
    file.unlink()
    assert "link.toml, a link: no such file: deep/c.toml" in refusal(toml.read, link)


def test_paths_may_begin_at_home(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write("home/a.toml", "x = 1\n")
    assert toml.read(write("c.toml", 'extends = ["~/a.toml"]\n')).tree == {"x": 1}


def test_name_aliases_and_description_are_not_inherited(write):
    write("a.toml", 'name = "a"\naliases = ["old"]\ndescription = "x"\nphase = "8"\n')
    assert toml.read(write("b.toml", 'extends = ["a.toml"]\n')).tree == {"phase": "8"}


def test_a_cycle_is_shown(write):
    write("a.toml", 'extends = ["b.toml"]\n')
    write("b.toml", 'extends = ["c.toml"]\n')
    path = write("c.toml", 'extends = ["a.toml"]\n')
    text = refusal(toml.read, path)
    assert "c.toml -> a.toml -> b.toml -> c.toml" in text
    text = refusal(toml.read, write("self.toml", 'extends = ["self.toml"]\n'))
    assert "self.toml -> self.toml" in text


def test_a_missing_base_names_the_file_that_wants_it_and_the_closest(write):
    write("base/48M.toml", "")
    text = refusal(toml.read, write("a.toml", 'extends = ["base/48m.toml"]\n'))
    assert "a.toml: extends: no such file: base/48m.toml" in text
    assert "did you mean '48M.toml'?" in text


@pytest.mark.parametrize("value", ['"a.toml"', "[1]", "{}", "true"])
def test_extends_must_be_an_array_of_paths(write, value):
    assert "a.toml: extends" in refusal(toml.read, write("a.toml", f"extends = {value}\n"))


@pytest.mark.parametrize("text", ["x = ", "x = 1\nx = 2\n", "x = yes\n", "[t\n"])
def test_bad_toml_names_file_and_line(write, text):
    message = refusal(toml.read, write("a.toml", text))
    assert message.startswith("a.toml: not TOML")
    assert "line" in message or "end of document" in message


def test_a_folder_and_other_encodings_are_refused(tmp_path, write):
    (tmp_path / "dir.toml").mkdir()
    text = refusal(toml.read, tmp_path / "dir.toml")
    assert "dir.toml" in text
    assert "is it a file?" in text
    for content in (b'x = "\xe9"\n', b"\xef\xbb\xbfx = 1\n", "x = 1".encode("utf-16")):
        write("other.toml", "").write_bytes(content)
        text = refusal(toml.read, tmp_path / "other.toml")
        assert text.startswith("other.toml: ")
        assert "save it as UTF-8 without a byte-order mark" in text


def nested(depth):
    """An array of arrays; the innermost is the ``depth``-th."""
    return "[" * depth + "]" * depth


BEYOND = [
    ("x = " + "[" * 3000, "deep"),
    (f"x = {nested(toml.DEEPEST + 1)}", "deep"),
    (".".join("a" * 3000) + " = 1", "deep"),
    (".".join("a" * (toml.DEEPEST + 2)) + " = 1", "deep"),
    ("x = " + "9" * 5000, "64 bits"),
    ("x = 0x" + "f" * 5000, "64 bits"),
    ("x = [{a = [-9223372036854775809]}]", "64 bits"),
]


@pytest.mark.parametrize(("text", "said"), BEYOND, ids=[text[:20] for text, _ in BEYOND])
def test_what_is_beyond_measure_is_refused(text, said, write):
    message = refusal(toml.read, write("a.toml", text))
    assert message.startswith("a.toml: ")
    assert said in message
    if text.startswith("x = "):
        message = refusal(toml.apply_overrides, toml.Document(), [text])
        assert message.startswith(f"-o {text[:60].rstrip()}")
        assert said in message
        assert len(message) < 400


def test_what_is_within_measure_is_read(write):
    deepest = f"x = {nested(toml.DEEPEST)}\n"
    most = "y = [9223372036854775807, -9223372036854775808]\n"
    assert toml.read(write("a.toml", deepest + most)).tree["y"] == [2**63 - 1, -(2**63)]
    path, value = toml.parse_override(".".join("a" * toml.DEEPEST) + " = 1")
    assert (len(path), value) == (toml.DEEPEST, 1)
    message = refusal(toml.parse_override, ".".join("a" * (toml.DEEPEST + 1)) + " = 1")
    assert "not an override" in message


def test_a_scale_lies_over_the_rest_with_its_own_origin(write):
    write("base.toml", "[t]\na = 1\nb = 1\n[scale.small.t]\na = 10\n[scale.tiny.t]\na = 99\n")
    path = write("a.toml", 'extends = ["base.toml"]\n[t]\na = 2\n[scale.small.t]\nc = 3\n')
    document = toml.read(path)
    assert sorted(toml.scales(document)) == ["small", "tiny"]
    toml.apply_scale(document, "small")
    assert document.tree == {"t": {"a": 10, "b": 1, "c": 3}}
    assert document.origin["t.a"] == "scale small (base.toml)"
    assert document.origin["t.c"] == "scale small (a.toml)"
    assert document.origin["t.b"] == "base.toml"
    assert not any(key.startswith("scale") for key in document.origin)


def test_an_undefined_scale_changes_nothing(write):
    document = toml.read(write("a.toml", "x = 1\n[scale.small]\nx = 2\n"))
    toml.apply_scale(document, "paper")
    assert document.tree == {"x": 1}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('scale = "laptop"\n', "a.toml: scale"),
        ("[scale]\nlaptop = 1\n", "a.toml: scale.laptop"),
        ('[scale.laptop]\nkind = "policy"\n', "a.toml: scale.laptop.kind"),
        ('[scale.laptop]\nextends = ["b.toml"]\n', "a.toml: scale.laptop.extends"),
    ],
)
def test_bad_scale_tables(write, text, key):
    document = toml.read(write("a.toml", text))
    assert key in refusal(toml.apply_scale, document, "laptop")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=3", 3),
        ("a.b = 0.5", 0.5),
        ("a.b=true", True),
        ("a.b=[1, 2]", [1, 2]),
        ('a.b="x y"', "x y"),
        ("a.b=heun", "heun"),
        ("a.b=/data/mt30.zarr", "/data/mt30.zarr"),
        ("a.b=../x/y-2.zarr", "../x/y-2.zarr"),
        ("a.b=cuda:0", "cuda:0"),
        ("a.b=walker-walk", "walker-walk"),
    ],
)
def test_overrides_are_toml_values_or_plain_words(text, value):
    document = toml.Document({"a": {"b": 0, "c": 1}}, {"a.b": "f", "a.c": "f"})
    toml.apply_overrides(document, [text])
    assert document.tree == {"a": {"b": value, "c": 1}}
    assert type(document.tree["a"]["b"]) is type(value)
    assert document.origin == {"a.b": "override", "a.c": "f"}


def test_the_last_override_wins_and_new_tables_come_to_be():
    document = toml.Document()
    toml.apply_overrides(document, ["t.a=1", "t.a=2", "u.v.w=[]"])
    assert document.tree == {"t": {"a": 2}, "u": {"v": {"w": []}}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "=3",
        "a..b=3",
        ".a=3",
        "a b=3",
        "a.b=",
        "a.b=two words",
        "a.b=[1, 2",
        "a.b=3x",
        "a.b=1\nc = 2",
        "a.b='x",
        "scale=paper",
        "scale.laptop.x=3",
        'extends=["x.toml"]',
    ],
)
def test_bad_overrides_are_refused_with_a_hint(text):
    assert f"-o {text}" in refusal(toml.apply_overrides, toml.Document(), [text])


def test_an_override_below_a_value_is_refused():
    document = toml.Document({"a": 1}, {"a": "f"})
    assert "a is a value" in refusal(toml.apply_overrides, document, ["a.b=1"])


def test_a_table_can_be_overridden_by_keys_or_whole():
    document = toml.Document({"a": {"b": 1, "c": 1}}, {"a.b": "f", "a.c": "f"})
    toml.apply_overrides(document, ["a={b=2}"])
    assert document.tree == {"a": {"b": 2, "c": 1}}
    toml.apply_overrides(document, ["a=3"])
    assert document.origin == {"a": "override"}


@given(st.text(max_size=30))
def test_any_override_is_a_value_or_a_user_error(text):
    try:
        path, _ = toml.parse_override(text)
    except UserError:
        return
    assert path


def test_a_file_of_the_catalogue_is_extended_from_anywhere(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('extends = ["fmbpo:base/policies.toml"]\n[grid]\nseeds = [7]\n')
    found = toml.read(file)
    assert found.tree["kind"] == "policy"
    assert found.tree["grid"]["seeds"] == [7]
    assert found.files[0].name == "world_models.toml"


def test_a_file_that_the_catalogue_lacks_is_named(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('extends = ["fmbpo:base/policy.toml"]')
    with pytest.raises(UserError, match=r"mine\.toml: extends: no such file[\s\S]*did you mean"):
        toml.read(file)
