"""The blocks of run.yaml that belong to the app itself: model (reserved keys), eval, export and output."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, JsonValue, SerializeAsAny, ValidationInfo, field_validator

from forgefield.app.physics_block import PHYSICS, physics_settings
from forgefield.core.catalog import Catalog
from forgefield.core.settings import Matmul, Settings
from forgefield.models.architecture import Fidelity
from forgefield.models.baseline.settings import BaselineSettings, as_baseline

INTERNAL: dict[str, JsonValue] = {"internal": True}
"""Marks fields that ForgeField fills in; help and schema leave them out."""


class ModelExport(Settings):
    """`model.export`: hand out the loaded model from `evaluate` and `infer` as well."""

    dir: Path = Field(description="Folder for the bundle of the loaded model (weights.safetensors and manifest.json).")


class ModelBlock(Settings):
    """`model`: the reserved keys; beside them stand the settings of the architecture that `backend` names."""

    manifest: Path | None = Field(
        default=None,
        description="manifest.json (or the folder) of a bundle to start from, judge or export; in place of model_in.",
    )
    weights: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("weights", "path", "source"),
        description="Weights file (.safetensors) to load instead of the one that the manifest names.",
    )
    head: str | None = Field(default=None, description="Head for evaluate and infer; a model with one head needs none.")
    physics: dict[str, SerializeAsAny[Settings]] = Field(
        default_factory=dict,
        description="Physics added to the learned energy of a new model, by name, with the settings of each: "
        "{zbl: {}, coulomb: {method: dsf}}. There are " + ", ".join(Catalog(PHYSICS).names()) + "; "
        "`forgefield explain model.physics.zbl` shows the settings of one.",
    )
    fidelity: Fidelity = Field(
        default=Fidelity(), description="How the levels of theory of a new model (data with several) differ."
    )
    baseline: BaselineSettings | None = Field(
        default=None,
        description="Delta-learning: the level of theory that a new model corrects; it learns label minus base. "
        "gfn2-xtb, gfn1-xtb, or a block {method: labels}; null: the model gives the labels itself.",
    )
    export: ModelExport | None = Field(
        default=None, description="Where evaluate and infer also save the loaded model; null saves nothing."
    )
    settings: SerializeAsAny[Settings] | None = Field(
        default=None,
        description="Filled in by ForgeField from the keys beside the reserved ones; null when the bundle decides.",
        json_schema_extra=INTERNAL,
    )

    @field_validator("physics", mode="before")
    @classmethod
    def _known_terms(cls, value: Any) -> Any:
        return physics_settings(value)

    @field_validator("baseline", mode="before")
    @classmethod
    def _one_baseline(cls, value: Any) -> Any:
        return as_baseline(value)


class EvalSettings(Settings):
    """`eval`: how evaluate and infer compute."""

    energy_only: bool = Field(default=False, description="Compute energies only; skip forces and stress.")
    free_atoms: bool = Field(
        default=False,
        description="evaluate: leave atoms held fixed out of the force errors, as train.train_on_free_atoms does.",
    )
    correction_alone: bool = Field(
        default=False,
        description="infer: give the correction of a model with model.baseline, without the base level.",
    )
    amp: bool = Field(default=False, description="Use half precision where it is safe (CUDA only); less exact.")
    matmul: Matmul = Field(
        default="float32",
        description="Products of float32 matrices: float32 (strict), tf32 (newer NVIDIA GPUs) or bf16 (processors with "
        "AMX), faster and less exact; where the machine cannot do it, float32, and a line says so.",
    )
    memory_share: float = Field(
        default=0.5,
        gt=0.0,
        le=0.9,
        description="Share of the free memory that a batch of evaluate and infer may take, with data.batch_size: auto.",
    )

    @field_validator("matmul")
    @classmethod
    def _float32_products(cls, value: str, info: ValidationInfo) -> str:
        if value != "float32" and info.data.get("amp"):
            raise ValueError("has no effect with amp, which multiplies in float16; keep one of the two")
        return value


class ExportSettings(Settings):
    """`export`: what is handed out after training, and by `task: export`."""

    standard_artifacts: bool = Field(
        default=True, description="Whether training ends with an export of its best weights."
    )
    dir: Path = Field(default=Path("artifacts"), description="Folder of the artifacts, inside run_dir unless absolute.")
    targets: tuple[str, ...] = Field(
        default=("torchscript",), description="Formats to write beside weights.safetensors and manifest.json."
    )

    files_of: Literal["alignn", "xequinet"] | None = Field(
        default=None,
        description="Training also writes its results under the names that scripts for another program read. alignn, "
        "into run_dir/alignn: ids_train_val_test.json, history_train.json, history_val.json, Train_results.json, "
        "Val_results.json, Test_results.json, mad, prediction_results_test_set.csv, prediction_results_train_set.csv. "
        "xequinet, into run_dir/xequinet, for test data: NAME_test.log, NAME_test_results.npz (docs/translate.md). "
        "null: none.",
    )
    correction_alone: bool = Field(
        default=False,
        description="Write files of a model with model.baseline although they hold its correction alone: the base "
        "level must be added by whoever uses them. The weights in manifest.json serve Python and ASE as a whole.",
    )
    fidelity: str = Field(
        default="all",
        min_length=1,
        description="Levels of theory that are handed out: all (one artifact with all of them), each (a folder for "
        "each, named as the level), or the name of one.",
    )
    dispersion: dict[str, JsonValue] | str | None = Field(
        default=None,
        description="D3(BJ) dispersion added to a model whose labels lack it: name of the functional, or the settings "
        "of the term ({s6: 1.0, s8: 0.8, a1: 0.4, a2: 4.8}). null adds none.",
    )


class OutputSettings(Settings):
    """`output`: where evaluate and infer write."""

    dir: Path | None = Field(
        default=None, description="Folder of metrics and predictions; null means run_dir/evaluation/<name of the data>."
    )
    metrics_json: str | None = Field(default="metrics.json", description="File name of all metrics; null writes none.")
    metrics_csv: str | None = Field(
        default="metrics.csv", description="File name of the metrics table; null writes none."
    )
    predictions_csv: str | None = Field(
        default="predictions.csv", description="File name of energies per structure; null writes none."
    )
    predictions_xyz: str | None = Field(
        default="predictions.xyz",
        description="File name of structures with predicted energies and forces; null writes none.",
    )
