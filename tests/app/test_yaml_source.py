import pytest

from forgefield.app.yaml_source import Place, locate, merge, node_of, parse_yaml, read_yaml
from forgefield.core.errors import ConfigError

SOURCE = Place("run.yaml")


def message(text, **options):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, SOURCE, **options)
    return str(caught.value)


def test_values_and_places():
    tree = parse_yaml("a: 1\nb:\n  c: [x, 2.5]\n  d: 1e-3\n", SOURCE)
    assert tree.plain() == {"a": 1, "b": {"c": ["x", 2.5], "d": 1e-3}}
    assert str(tree.find("b", "d").place) == "run.yaml:4:3"
    assert str(tree.find("b", "c", 1).place) == "run.yaml:3:10"


def test_words_that_older_yaml_reads_as_truth_stay_text():
    tree = parse_yaml("{a: yes, b: off, c: NO, d: 2020-01-01, e: null, f: true}", SOURCE)
    assert tree.plain() == {"a": "yes", "b": "off", "c": "NO", "d": "2020-01-01", "e": None, "f": True}


def test_merge_keys_and_anchors():
    tree = parse_yaml("base: &b {x: 1, y: 2}\nrun: {<<: *b, y: 3}\n", SOURCE)
    assert tree.find("run").plain() == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2", "run.yaml:2:1: 'a' stands twice; first at line 1"),
        ("a:\n  b: 1\n  b: 1", "run.yaml:3:3: 'b' stands twice"),
        ("a: 1\n\tb: 2", "run.yaml:2:1: not valid YAML"),
        ("a: 1\n\tb: 2", "spaces, not tabs"),
        ("a: [1, 2", "run.yaml:1:9: not valid YAML"),
        ("a: b: c", "run.yaml:1:5: not valid YAML: mapping values are not allowed here"),
        ("a: 'x", "close the quotation mark"),
        ("a: *b", "undefined alias 'b'"),
        ("a: 1\n---\nb: 2", "keep one document"),
        ("a: !!python/object:os.system x", "run.yaml:1:4: the tag !!python/object:os.system is not allowed"),
        ("a: !thing x", "the tag !thing is not allowed"),
        ("a: !!binary aGk=", "the tag !!binary is not allowed"),
        ("a: &a [*a]", "too large or too deep"),
        ("? [a]\n: b", "a key must be a word"),
        ("a: .nan", ".nan is not a number a setting can have"),
        ("a: -.inf", "-.inf is not a number"),
        ("a: \x01", "not valid YAML"),
    ],
)
def test_bad_yaml_is_one_message_with_its_place(text, expected):
    assert expected in message(text)


def test_a_bomb_of_anchors_is_refused_quickly():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12)]
    assert "too large" in message("\n".join(lines))


def test_a_value_on_the_command_line_has_no_line_numbers():
    assert message("[1", positions=False).startswith("run.yaml: not valid YAML")


@pytest.mark.parametrize(
    ("content", "expected"), [(b"\xff\xfe\x00", "not a text file in UTF-8"), (b"\xef\xbb\xbfa: 1", None)]
)
def test_encodings(tmp_path, content, expected):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    if expected is None:
        assert read_yaml(path).plain() == {"a": 1}
    else:
        with pytest.raises(ConfigError, match=expected):
            read_yaml(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "nope.yaml")
    with pytest.raises(ConfigError, match="this is a folder"):
        read_yaml(tmp_path)


def test_merge_is_deep_and_keeps_places():
    below = parse_yaml("t: {a: 1, b: 2}\nl: [1]", Place("below"))
    above = parse_yaml("t: {b: 3, c: 4}\nl: [2, 3]", Place("above"))
    tree = merge(below, above)
    assert tree.plain() == {"t": {"a": 1, "b": 3, "c": 4}, "l": [2, 3]}
    assert str(tree.find("t", "a").place) == "below:1:5"
    assert str(tree.find("t", "b").place) == "above:1:5"


def test_locate_names_the_deepest_place_that_exists():
    tree = parse_yaml("t:\n  a: 1", SOURCE)
    assert [str(x) for x in locate(tree, ("t", "zz"))] == ["run.yaml:1:1", "t.zz"]
    assert [str(x) for x in locate(tree, ("t", "a"))] == ["run.yaml:2:3", "t.a"]


def test_plain_values_become_a_tree_at_one_place(tmp_path):
    tree = node_of({"a": [tmp_path, 1]}, Place("--flag"))
    assert tree.plain() == {"a": [str(tmp_path), 1]}
    assert str(tree.find("a", 0).place) == "--flag"
