"""Keys, aliases and combinations of the `train` block."""

import pytest
from pydantic import ValidationError

from forgefield.train.settings import TrainSettings


def refuse(match, place=None, **keys):
    with pytest.raises(ValidationError, match=match) as caught:
        TrainSettings.model_validate(keys)
    if place:
        assert caught.value.errors()[0]["loc"][0] == place


def test_defaults_are_those_of_mace_torch():
    s = TrainSettings()
    assert (s.lr, s.batch_size, s.weight_decay, s.amsgrad, s.optimizer) == (0.01, 10, 5e-7, True, "adam")
    assert (s.scheduler, s.lr_factor, s.plateau_patience, s.max_grad_norm) == ("plateau", 0.8, 50, 10.0)
    assert (s.energy_weight, s.force_weight, s.stress_weight, s.ema_decay) == (1.0, 100.0, 0.0, 0.99)


@pytest.mark.parametrize("name", ["patience", "plateau_patience"])
def test_patience(name):
    assert TrainSettings.model_validate({name: 3}).plateau_patience == 3


@pytest.mark.parametrize("name", ["input_json", "model_json", "config_json"])
def test_input_json(name):
    assert TrainSettings.model_validate({name: "m.json"}).input_json == "m.json"


@pytest.mark.parametrize("name", ["head_key", "target_keys", "head"])
def test_head(name):
    assert TrainSettings.model_validate({name: "pbe"}).head_key == "pbe"


def test_one_value_under_two_names_is_refused():
    refuse("patience", patience=3, plateau_patience=4)


def test_every_key_is_described():
    assert all(field.description and len(field.description) > 8 for field in TrainSettings.model_fields.values())


def test_resolved_settings_read_back_the_same():
    s = TrainSettings.model_validate(
        {"cycle_steps": 5, "scheduler": "step", "scheduler_step_unit": "cycle", "log_every": False}
    )
    assert TrainSettings.model_validate(s.model_dump()) == s
    assert TrainSettings.model_validate_json(s.model_dump_json()) == s


def test_cycles_drop_the_last_batch():
    assert not TrainSettings().drop_last
    assert TrainSettings(cycle_steps=5).drop_last
    refuse("must be true with cycle_steps", "drop_last", cycle_steps=5, drop_last=False)


@pytest.mark.parametrize("off", [False, None, "off", "none"])
def test_log_every_off(off):
    assert TrainSettings(log_every=off).log_every is None


def test_unknown_plug_ins_get_a_hint():
    refuse("did you mean 'adamw'", "optimizer", optimizer="adamww")
    refuse("did you mean 'plateau'", "scheduler", scheduler="plato")
    refuse("did you mean 'mse'", "loss_energy", loss_energy="mst")
    refuse("not defined for stress", "loss_stress", loss_stress="l2mae")


def test_keys_without_effect_are_refused():
    refuse("no effect with optimizer adam", "momentum", momentum=0.5)
    refuse("no effect with optimizer sgd", "betas", optimizer="sgd", betas=(0.8, 0.99))
    refuse("no effect with scheduler plateau", "gamma", gamma=0.5)
    refuse("no effect with scheduler null", "lr_factor", scheduler=None, lr_factor=0.5)
    refuse("no effect", "patience", scheduler="step", patience=5)
    assert TrainSettings(scheduler="step", plateau_patience=5, early_stop_factor=2).plateau_patience == 5
    refuse("no effect", "scheduler_step_unit", cycle_steps=5, scheduler_step_unit="cycle")


def test_combinations_that_cannot_work():
    refuse("needs cycle_steps", "scheduler_step_unit", scheduler="step", scheduler_step_unit="cycle")
    refuse("nothing to fit", "stress_weight", energy_weight=0, force_weight=0)
    refuse("not a regular expression", "no_decay_keywords", no_decay_keywords=["("])
    refuse("derivative", "transform", transform={"mode": "standard"})
    refuse("at least 1", "log_every", log_every=0)
    refuse("less than 1", "betas", betas=(0.9, 1.0))
    refuse("Extra inputs", "lrate", lrate=0.1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", 0),
        ("epochs", 0),
        ("batch_size", 0),
        ("ema_decay", 1),
        ("max_grad_norm", 0),
        ("max_minutes", 0),
        ("seed", -1),
    ],
)
def test_values_out_of_range(key, value):
    refuse("Input should", key, **{key: value})


def test_forms_of_the_loss_without_effect_or_meaning_are_refused():
    refuse("no effect: no loss is huber", "huber_delta", huber_delta=0.1)
    refuse("no effect: no loss is smooth_l1", "smooth_l1_beta", smooth_l1_beta=0.1)
    refuse("of loss huber are energy", "huber_delta", loss_energy="huber", huber_delta={"forces": 0.1})
    refuse("greater than 0", "huber_delta", loss_energy="huber", huber_delta=0.0)
    refuse("no effect with loss 'atomwisel2'", "loss_force", loss_force="atomwisel2", force_normalization="total")
    refuse("stress_weight is 0", "stress_normalization", stress_normalization="per_atom")
    refuse("has keys of its own: force_weight", "targets", targets={"forces": {}})
    refuse("did you mean 'huber'", "targets", targets={"charges": {"loss": "hubber"}})
    refuse("not defined for charges", "targets", targets={"charges": {"loss": "l2mae"}})
    refuse("not defined for dipole", "targets", targets={"dipole": {"loss": "atomwisel2"}})
    refuse("force_weight is 0", "train_on_free_atoms", force_weight=0, train_on_free_atoms=True)
    refuse("force_weight is 0", "tag_weights", force_weight=0, tag_weights={0: 0.0})
    refuse("greater than or equal to 0", "tag_weights", tag_weights={0: -1.0})
    assert TrainSettings(energy_weight=0, force_weight=0, targets={"charges": {}}).trained_labels() == {"charges"}
    assert TrainSettings(force_weight=0, targets={"virial": {}}).trained_labels() == {"energy", "stress"}


def test_stage_two():
    refuse("not before the end: epochs is 5", "stage_two", epochs=5, stage_two={"start": 5})
    refuse("target_weights names charges", "stage_two", stage_two={"start": 5, "target_weights": {"charges": 1}})
    none = {"start": 5, "energy_weight": 0, "force_weight": 0}
    refuse("nothing to fit", "stage_two", stage_two=none)
    refuse("Field required", "stage_two", stage_two={})
    s = TrainSettings.model_validate({"swa": {"start_swa": 5, "swa_lr": 1e-4, "stress_weight": 3}})
    assert (s.stage_two.start, s.stage_two.lr, s.stage_two.average) == (5, 1e-4, "ema")
    assert s.loss_weights(1) == {"energy": 1.0, "forces": 100.0, "stress": 0.0}
    assert s.loss_weights(2) == {"energy": 1000.0, "forces": 100.0, "stress": 3.0}
    assert s.trained_labels() == {"energy", "forces", "stress"}
    assert TrainSettings.model_validate_json(s.model_dump_json()) == s


def test_mixed_precision():
    refuse("Input should be", "amp", amp="float8")
    refuse("no effect with amp", "matmul", amp="bfloat16", matmul="bf16")
    refuse("cannot be had with amp", "compile", amp="bfloat16", compile=True)
