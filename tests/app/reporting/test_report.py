"""The report stands alone, is well formed, and says what the metrics say."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from fake_run import write_fake_run

from forgefield.app.reports.contents import read_contents
from forgefield.app.reports.markup import duration, milli, significant
from forgefield.app.reports.page import write_report
from forgefield.app.reports.plot import Axis, Chart, axis_over, linear_ticks, log_ticks
from forgefield.app.reports.reading import sentences
from forgefield.app.reports.tables import loss_text

VOID = {"meta", "br"}


class Checker(HTMLParser):
    """Follows open and closed tags; collects text and links."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.links, self.seen = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run") / "demo"
    metrics = write_fake_run(root, n=60, epochs=30, stress=True)
    return root, metrics, write_report(root).read_text(encoding="utf-8")


def test_it_is_well_formed_and_escapes_names(run):
    _, _, page = run
    checker = checked(page)
    assert "demo <3BPA>" in "".join(checker.text)
    assert {"svg", "table", "style"} <= checker.seen
    assert not checker.seen & {"script", "link", "img", "iframe"}


def test_nothing_is_loaded_from_elsewhere(run):
    _, _, page = run
    assert not re.search(r"https?:|url\(|@import|//[a-z]", page)
    assert all(link.startswith("#") for link in checked(page).links)
    assert len(page) < 3_000_000


def test_it_holds_the_numbers_of_the_metrics(run):
    _, metrics, page = run
    text = "".join(checked(page).text)
    for key in ("forces_rmse", "forces_mae", "energy_rmse_per_atom", "energy_mae_per_atom", "energy_rmse"):
        assert milli(metrics["all"][key]) in text, key
    for group in ("by_element", "by_config_type", "by_component"):
        for name, values in metrics[group].items():
            assert name in text
            assert milli(values["forces_rmse"]) in text, (group, name)
    assert milli(metrics["all"]["energy_rmse_per_atom"]) in text


def test_it_tells_where_all_came_from(run):
    root, _, page = run
    text = "".join(checked(page).text)
    record = json.loads((root / "run.json").read_text())
    assert record["data"]["train"]["fingerprint"] in text
    assert record["split"]["hash"] in text
    assert record["reproduce"] in text
    assert record["command"] in text
    for version in record["environment"].values():
        assert str(version) in text
    assert "−1029.489000" in text
    assert "isolated atoms" in text
    assert "83,264" in text
    assert "hidden_irreps" in text
    assert "100 · mean over force components of (ΔF)²" in text
    assert "ForgeField.load(" in text
    assert str(root / "artifacts") in text


def test_the_worst_structure_comes_first(tmp_path):
    write_fake_run(tmp_path / "run", n=30)
    path = tmp_path / "run" / "evaluation" / "test_300K" / "predictions.npz"
    arrays = dict(np.load(path))
    arrays["forces"][27 * 11 + 3] += 9.0
    np.savez_compressed(path, **arrays)
    text = write_report(tmp_path / "run").read_text()
    first = text.split('id="worst"', 1)[1].split("<tbody>", 1)[1].split("</tr>", 1)[0]
    assert "test_300K.xyz: frame 11" in first
    assert "(C, atom 3)" in first
    assert "C12H12N2O" in first


def test_a_run_without_history_or_forces_still_reports(tmp_path):
    write_fake_run(tmp_path / "run", n=30)
    root = tmp_path / "run"
    (root / "history.jsonl").unlink()
    for name in ("test_300K", "val"):
        path = root / "evaluation" / name / "predictions.npz"
        arrays = dict(np.load(path))
        arrays["forces"] = np.zeros((0, 3))
        np.savez_compressed(path, **arrays)
        metrics = json.loads((root / "evaluation" / name / "metrics.json").read_text())
        metrics = {"all": {k: v for k, v in metrics["all"].items() if not k.startswith("forces")}}
        (root / "evaluation" / name / "metrics.json").write_text(json.dumps(metrics))
    text = "".join(checked(write_report(root).read_text()).text)
    assert "Energy per atom" in text
    assert "Force components" not in text
    assert "Validation force error" not in text


def test_a_history_cut_short_is_read_up_to_the_cut(tmp_path):
    write_fake_run(tmp_path / "run", n=10, epochs=5)
    path = tmp_path / "run" / "history.jsonl"
    path.write_text(path.read_text() + '{"epoch": 6, "train_lo')
    assert list(read_contents(tmp_path / "run").series("epoch")) == [1, 2, 3, 4, 5]


def test_an_unfinished_run_is_called_so(tmp_path):
    write_fake_run(tmp_path / "run", n=10, epochs=5)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"status": "stopped by the user"}))
    assert "This run is not complete: stopped by the user" in write_report(tmp_path / "run").read_text()


def test_the_reading_follows_the_numbers(tmp_path):
    write_fake_run(tmp_path / "run", n=30)
    contents = read_contents(tmp_path / "run")
    text = " ".join(sentences(contents))
    metrics = contents.judged.overall
    assert f"{milli(metrics['forces_rmse'])} meV/Å" in text
    assert significant(100 * metrics["forces_rmse"] / metrics["forces_rms_label"], 2, pad=True) in text
    assert "still improving" in text
    contents.record["fit"]["best_epoch"] = 10
    assert "later epochs did not improve" in " ".join(sentences(contents))
    assert "larger than on the validation part for test_300K" in text
    contents.record["fit"] |= {"best_epoch": 10, "epochs_done": 9}
    assert "The best epoch was 10 of 10" in " ".join(sentences(contents))
    metrics["forces_rmse"] = 2 * metrics["forces_rms_label"]
    assert "Not usable yet" in " ".join(sentences(contents))


def test_the_judged_set_is_test_data_not_validation(run):
    root, _, _ = run
    assert [one.name for one in read_contents(root).evaluated] == ["test_300K", "val"]


def test_what_training_saw_comes_last_whatever_its_name(tmp_path):
    write_fake_run(tmp_path / "run", n=10, epochs=3)
    (tmp_path / "run" / "evaluation" / "test_300K").rename(tmp_path / "run" / "evaluation" / "zinc")
    assert [one.name for one in read_contents(tmp_path / "run").evaluated] == ["zinc", "val"]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"judged": "val"}))
    assert [one.name for one in read_contents(tmp_path / "run").evaluated] == ["val", "zinc"]


def test_the_loss_is_spelled_out():
    text = loss_text(
        {"energy_weight": 2, "force_weight": 0, "loss_energy": "mae", "stress_weight": 5, "loss_stress": "mse"}
    )
    assert "2 · mean over structures of |ΔE/n|" in text
    assert "5 · mean over stress components of (Δstress)²" in text
    assert "ΔF" not in text
    text = loss_text(
        {
            "loss_energy": "huber",
            "energy_normalization": "sqrt_atoms",
            "loss_force": "l2mae",
            "force_normalization": "per_structure",
            "targets": {"virial": {"weight": 2}, "charges": {"loss": "mae", "normalization": "total"}},
            "train_on_free_atoms": True,
            "stage_two": {"start": 7},
        }
    )
    assert "1 · mean over structures of huber(ΔE, delta 0.01)/√n" in text
    assert "100 · mean over structures of the mean over their atoms of ‖ΔF‖" in text
    assert "2 · mean over virial components of (Δvirial/n)²" in text
    assert "1 · mean over structures of the sum over atoms of |Δcharges|" in text
    assert "atoms held fixed are left out" in text
    assert "stage two, after 7 epochs at most: 1000 · mean over structures" in text
    assert "loss_old" in loss_text({"loss_old": 3})


def test_numbers_are_short_and_honest():
    assert significant(0.0123456) == "0.0123"
    assert significant(12345.6) == "12,346"
    assert significant(-3.0) == "−3"
    assert significant(3.0, pad=True) == "3.00"
    assert significant(120.0, pad=True) == "120"
    assert significant(None) == "–"
    assert significant(float("nan")) == "–"
    assert milli(0.0424) == "42.4"
    assert [duration(s) for s in (0.84, 47.2, 133, 11100)] == ["0.8 s", "47 s", "2 min 13 s", "3 h 05 min"]


def test_ticks_are_round_and_inside():
    assert linear_ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert linear_ticks(0.5, 2.5, smallest=1.0) == [1, 2]
    assert log_ticks(0.5, 200) == [0.5, 1, 2, 5, 10, 20, 50, 100, 200]
    ticks = linear_ticks(-4.4873, -4.4021)
    assert 4 <= len(ticks) <= 8
    assert all(-4.4873 <= t <= -4.4021 for t in ticks)


def test_density_cells_cover_the_points():
    chart = Chart(Axis("x", 0, 1), Axis("y", 0, 1), "t")
    chart.density(np.array([0.5, 0.5, 0.95]), np.array([0.5, 0.5, 0.05]), bins=10)
    assert len(chart.marks) == 2
    assert "d6" in chart.marks[1]


def test_an_axis_survives_equal_and_missing_values():
    assert axis_over("x", np.array([2.0, 2.0])).high > 2.0
    assert axis_over("x", np.array([np.nan]), log=True).low > 0
    assert axis_over("x", np.array([3.0, -1.0, 0.0]), log=True).low > 0


def test_errors_by_head_and_element_of_the_best_validation(tmp_path):
    """Only where there is more than one; the rows of other validations are not shown."""
    root = tmp_path / "run"
    write_fake_run(root, n=10, epochs=2)
    lines = (root / "history.jsonl").read_text().splitlines()
    history = [json.loads(line) | {"update": 10 * k} for k, line in enumerate(lines, 1)]
    history = [row | {"best": row["update"] == 10} for row in history]
    (root / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    names = {"head": ["only"], "element": ["H", "O"]}
    rows = [
        {"update": update, "set": part, "group": group, "name": name, "energy_rmse_per_atom": None,
         "forces_rmse": 0.0123 * update * (1 + k) + (part == "val"), "stress_rmse": None}
        for update in (10, 20) for part in ("train", "val") for group in names for k, name in enumerate(names[group])
    ]  # fmt: skip
    (root / "breakdown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = write_report(root).read_text()
    table = text.split("By element, while training", 1)[1].split("</table>", 1)[0]
    assert '<th class="n">F RMSE, training</th><th class="n">F RMSE, validation</th></tr>' in table
    assert [row.split("<td>")[1].split("<")[0] for row in table.split("<tr>")[2:]] == ["H", "O"]
    assert all(value in table for value in ("123", "246", "1,123", "1,246"))
    assert "By head, while training" not in text
