import json

import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.data.dataset import detect_format, open_dataset


def store(path, count=3, **changes):
    """A store as a sampler writes it."""
    (path / "structures").mkdir(parents=True, exist_ok=True)
    lines = []
    for k in range(count):
        fields = {
            "numbers": np.array([29, 8]),
            "positions": np.array([[0, 0, 0.1 * k], [1, 1, 1]], dtype=np.float32),
            "cell": np.eye(3, dtype=np.float32) * 9,
            "pbc": np.array([1, 1, 0], dtype=np.int8),
            "tags": np.array([0, 2], dtype=np.int16),
            "fixed": np.array([1, 0], dtype=np.int8),
            "info_json": np.array(json.dumps({"energy": -1.0 * k, "forces": [[0, 0, 1], [0, 0, -1]], "step": k})),
        } | changes
        np.savez(path / "structures" / f"id{k}.npz", **{n: v for n, v in fields.items() if v is not None})
        lines.append(json.dumps({"id": f"id{k}", "path": f"structures/id{k}.npz", "n_atoms": 2, "kind": "min"}))
    (path / "structures" / "index.jsonl").write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("place", [".", "structures", "structures/index.jsonl"])
def test_a_store_is_found_by_its_folder_or_its_list(tmp_path, place):
    path = store(tmp_path) / place
    assert detect_format(path) == "structure_store"
    s = open_dataset(path)[2]
    assert s.numbers.tolist() == [29, 8]
    assert s.pbc.tolist() == [True, True, False]
    assert (s.tags.tolist(), s.fixed.tolist()) == ([0, 2], [True, False])
    assert s.labels["energy"] == -2.0
    np.testing.assert_array_equal(s.labels["forces"], [[0, 0, 1], [0, 0, -1]])
    assert s.info == {"step": 2, "kind": "min"}
    np.testing.assert_array_equal(s.positions, np.array([[0, 0, np.float32(0.2)], [1, 1, 1]]))


def test_optional_fields_may_be_missing_or_empty(tmp_path):
    empty = np.zeros(0)
    s = open_dataset(store(tmp_path, cell=None, pbc=None, tags=empty, fixed=None, info_json=np.array("")))[0]
    assert not s.pbc.any()
    assert s.tags is None
    assert not s.labels


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": np.zeros((3, 3))}, "2 atomic numbers but positions"),
        ({"numbers": np.array([1.5, 2])}, "no numbers or no positions"),
        ({"cell": np.zeros((2, 3))}, r"cell has shape \(2, 3\)"),
        ({"tags": np.zeros(3, dtype=int)}, "tags has shape"),
        ({"info_json": np.array("{")}, "info_json: is no JSON"),
        ({"info_json": np.zeros(1)}, "info_json is no text"),
        ({"positions": np.full((2, 3), np.nan)}, "positions hold NaN"),
    ],
)
def test_fields_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        list(open_dataset(store(tmp_path, **changes)))


def test_a_structure_that_is_missing_or_cut_off(tmp_path):
    store(tmp_path, 40)
    path = tmp_path / "structures" / "id1.npz"
    whole = path.read_bytes()
    dataset = open_dataset(tmp_path)
    path.write_bytes(whole[:200])
    with pytest.raises(DataError, match=r"id1\.npz: cannot be opened"):
        dataset[1]
    path.unlink()
    with pytest.raises(DataError, match=r"structure 1 \(id1\.npz\): its file is missing"):
        dataset[1]


@pytest.mark.parametrize("name", ["/etc/passwd.npz", "../../secret.npz", "structures/../../x.npz"])
def test_names_that_lead_outside_are_refused(tmp_path, name):
    store(tmp_path)
    (tmp_path / "structures" / "index.jsonl").write_text(json.dumps({"path": name}) + "\n")
    with pytest.raises(DataError, match="leads outside of the store"):
        open_dataset(tmp_path)


def test_a_line_that_is_none(tmp_path):
    store(tmp_path)
    path = tmp_path / "structures" / "index.jsonl"
    path.write_text(path.read_text() + '{"path": "structures/id')
    with pytest.raises(DataError, match=r"index.jsonl: line 4: is no JSON"):
        open_dataset(tmp_path)


def test_a_label_under_another_name_in_a_structure_not_looked_at_is_no_missing_label(tmp_path):
    path = store(tmp_path, count=100)
    other = path / "structures" / "id50.npz"  # between the 32 that decide about names
    with np.load(other) as file:
        fields = dict(file)
    np.savez(other, **fields | {"info_json": np.array(json.dumps({"dft_energy": -1.0}))})
    dataset = open_dataset(path)
    assert dataset[49].labels["energy"] == -49.0
    with pytest.raises(DataError, match=r"structure 50.*has energy under 'dft_energy', the frames looked at first"):
        dataset[50]
