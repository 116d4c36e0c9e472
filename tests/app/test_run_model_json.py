import hashlib
import json

import pytest
from water import write_run

from forgefield.app.run import load_run, save_resolved
from forgefield.core.errors import ConfigError

MODEL = {
    "model_type": "ScaleShiftMACE", "z_table": [1, 8], "e0_values": [-13.6, -2040.0], "heads": ["Default"],
    "cutoff": 4.5, "num_interactions": 2, "num_radial_basis": 8, "radial_type": "bessel", "num_polynomial_cutoff": 5,
    "hidden_irreps": "8x0e+8x1o", "MLP_irreps": "8x0e", "max_ell": 2, "correlation": 2, "gate": "silu",
    "avg_num_neighbors": 11.0, "scale_shift": {"scale": 1.2, "shift": 0.1},
    "interaction_cls": "RealAgnosticResidualInteractionBlock", "interaction_cls_first": "RealAgnosticInteractionBlock",
    "readout_cls": "NonLinearReadoutBlock", "edge_irreps": None, "radial_MLP": [16], "pair_repulsion": False,
    "distance_transform": "Agnesi", "use_reduced_cg": True, "use_so3": False, "use_agnostic_product": False,
    "use_last_readout_only": False, "apply_cutoff": True,
}  # fmt: skip
RUN = "task: train\nrun_dir: r\ndata: {train: a.xyz}\ntrain:\n  model_json: model.json\n"


def load(folder, text=RUN, **changes):
    model = {key: value for key, value in {**MODEL, **changes}.items() if value != "absent"}
    (folder / "model.json").write_text(json.dumps(model))
    return load_run(write_run(folder, text))[0]


def test_it_becomes_our_settings(tmp_path):
    config = load(tmp_path)
    settings = config.model.settings
    assert config.backend == "mace"
    assert (settings.r_max, settings.hidden_irreps, settings.mlp_irreps) == (4.5, "8x0e+8x1o", "8x0e")
    assert (settings.interaction_first, settings.interaction) == ("plain", "residual")
    assert (settings.distance_transform, settings.radial_mlp, settings.use_reduced_cg) == ("agnesi", [16], True)


def test_what_belongs_to_the_data_is_kept(tmp_path):
    record = load(tmp_path).model_json
    assert (record.elements, record.heads) == ((1, 8), ("Default",))
    assert record.reference_energies == {"Default": {1: -13.6, 8: -2040.0}}
    assert (record.avg_num_neighbors, record.scale, record.shift) == (11.0, (1.2,), (0.1,))


def test_the_hash_is_of_the_canonical_text(tmp_path):
    record = load(tmp_path).model_json
    canonical = json.dumps(MODEL, sort_keys=True, separators=(",", ":"))
    assert record.sha256 == hashlib.sha256(canonical.encode()).hexdigest()
    (tmp_path / "model.json").write_text(json.dumps(dict(reversed(MODEL.items())), indent=3))
    assert load_run(tmp_path / "run.yaml")[0].model_json.sha256 == record.sha256


def test_heads_have_their_own_values(tmp_path):
    config = load(
        tmp_path, heads=["a", "b"], e0_values=[[-1.0, -2.0], [-3.0, -4.0]], scale_shift={"scale": [1, 2], "shift": 0}
    )
    record = config.model_json
    assert record.reference_energies == {"a": {1: -1.0, 8: -2.0}, "b": {1: -3.0, 8: -4.0}}
    assert (record.scale, record.shift) == ((1.0, 2.0), (0.0, 0.0))


def test_absent_measurements_are_left_to_the_data(tmp_path):
    record = load(tmp_path, e0_values="absent", avg_num_neighbors="absent", scale_shift="absent").model_json
    assert (record.reference_energies, record.avg_num_neighbors, record.scale) == (None, None, None)


def test_the_resolved_copy_needs_the_file_no_more(tmp_path):
    config = load(tmp_path)
    path = save_resolved(config, tmp_path / "r")
    (tmp_path / "model.json").unlink()
    assert load_run(path)[0] == config


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"cutof": 3}, "cutof: unknown key. Did you mean 'cutoff'?"),
        ({"num_bessel": 3}, "Did you mean 'num_radial_basis'?"),
        ({"cutoff": "absent"}, "cutoff: this key is required"),
        ({"use_so3": True}, "use_so3: true is not supported"),
        ({"e0_values": [1.0]}, "give 2 numbers (one per z_table entry)"),
        ({"z_table": [8, 1]}, "z_table: give each atomic number once, ascending"),
        ({"z_table": [0, 1]}, "atomic numbers run from 1 to 118"),
        ({"interaction_cls": "Foo"}, "interaction_cls: 'Foo' is not supported"),
        ({"readout_cls": "LinearReadoutBlock"}, "readout_cls 'LinearReadoutBlock' is not supported"),
        ({"cutoff": -1}, "model.r_max: got -1, expected a number > 0"),
        ({"scale_shift": {"scal": 1}}, "scale_shift: expected the keys scale and shift"),
        ({"scale_shift": {"scale": [1, 2], "shift": 0}}, "scale_shift.scale: give one number, or one per head"),
        ({"model_type": "BOTNet"}, "model_type 'BOTNet' is not known"),
        ({"model_type": "MACE"}, "scale_shift belongs to ScaleShiftMACE"),
        ({"avg_num_neighbors": -1}, "avg_num_neighbors: "),
    ],
)
def test_strict(tmp_path, changes, expected):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **changes)
    assert expected in str(caught.value)
    assert "model.json" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{1", "model.json:1:2: not valid JSON"), ("[]", "expected a JSON object"),
        ('{"a": 1, "a": 2}', "'a' stands twice"), (None, "run.yaml:5:3: train.input_json: "),
    ],
)  # fmt: skip
def test_unreadable(tmp_path, content, expected):
    if content is not None:
        (tmp_path / "model.json").write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_run(write_run(tmp_path, RUN))
    assert expected in str(caught.value).replace(str(tmp_path) + "/", "")


def test_the_architecture_is_described_once(tmp_path):
    with pytest.raises(ConfigError, match=r"run.yaml:6:9: model.r_max: train.input_json describes the architecture"):
        load(tmp_path, RUN + "model: {r_max: 3}\n")
    with pytest.raises(ConfigError, match=r"describes a mace, but backend is 'other'"):
        load(tmp_path, "backend: other\n" + RUN)
