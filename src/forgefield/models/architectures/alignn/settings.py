"""Settings of ALIGNN."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from forgefield.core.settings import Settings
from forgefield.graph.needs import Needs
from forgefield.models.architectures.alignn.foreign import refuse_foreign

AtomFeatures = Literal["cgcnn", "atomic_number", "basic", "cfid"]


class AlignnSettings(Settings):
    """Shape of an ALIGNN model (Choudhary, DeCost 2021). Keys are named as in alignn; docs/alignn.md compares them."""

    cutoff: float = Field(5.0, gt=0, description="Atoms closer than this are neighbours, Å.")
    neighbor_strategy: Literal["radius_graph", "radius_graph_jarvis", "k-nearest"] = Field(
        "radius_graph",
        description="Neighbours: all within the cutoff; these without an atom's own periodic images "
        "(radius_graph_jarvis); the max_neighbors nearest with all that are as near as the last (k-nearest).",
    )
    max_neighbors: int = Field(12, ge=1, description="Neighbours of an atom, with k-nearest.")
    use_canonize: bool = Field(
        True, description="With k-nearest: each pair counts once; false: twice where both atoms chose each other."
    )
    cutoff_extra: float = Field(
        0.0,
        ge=0,
        description="While an atom has no neighbour, the cutoff of its structure grows by this, Å, ten times at most; "
        "only without a cutoff function.",
    )
    three_body_cutoff: float | None = Field(
        None, gt=0, description="Angles are between neighbours closer than this, Å; null = cutoff."
    )
    backtracking: bool = Field(True, description="A bond and its reverse make an angle too.")
    lighten_edges: bool = Field(
        False, description="Leave angles out whose outer atoms are farther apart than inner_cutoff."
    )
    atom_features: AtomFeatures = Field(
        "cgcnn",
        description="What is known of the elements: cgcnn (92 yes/no), cfid (438 numbers), basic (11), atomic_number.",
    )
    atom_input_features: int | None = Field(
        None, ge=1, description="Length of the atom features; null = that of atom_features; another number is refused."
    )
    alignn_layers: int = Field(2, ge=0, le=20, description="Layers that update atoms, then bonds along their angles.")
    gcn_layers: int = Field(2, ge=0, le=20, description="Layers after these that update atoms and bonds.")
    edge_input_features: int = Field(80, ge=2, le=512, description="Gaussians of the distance, from 0 to 8 Å.")
    triplet_input_features: int = Field(40, ge=2, le=512, description="Gaussians of the angle's cosine.")
    embedding_features: int = Field(64, ge=1, le=1024, description="Width between Gaussians and features.")
    hidden_features: int = Field(64, ge=1, le=1024, description="Features of atoms, bonds and angles.")
    use_cutoff_function: bool = Field(True, description="Neighbours fade out towards inner_cutoff; false: they jump.")
    multiply_cutoff: bool = Field(
        True,
        description="The features of a bond are multiplied by the cutoff function; false: its value takes the "
        "distance's place in the Gaussians. With use_cutoff_function.",
    )
    inner_cutoff: float | None = Field(
        None, gt=0, description="Where the cutoff function ends, Å; null = cutoff. Also the limit of lighten_edges."
    )
    exponent: int = Field(5, ge=2, le=12, description="Order of the cutoff function.")
    use_penalty: bool = Field(True, description="Add an energy that pushes atoms apart which are too close.")
    penalty_factor: float = Field(0.1, ge=0, description="Its size, in the model's unit of energy per Å.")
    penalty_threshold: float = Field(1.0, gt=0, description="It begins below this distance, Å.")
    energy_mult_natoms: bool = Field(
        True, description="The energy is the mean over the atoms times their number; false: it is the mean."
    )
    link: Literal["identity", "log", "logit"] = Field(
        "identity", description="What follows the readout: nothing; exp, for positive numbers; a logistic curve."
    )
    output_features: int | None = Field(
        None, ge=1, description="Length of the one target of a structure; null = as it is; another number is refused."
    )
    atomwise_output_features: int | None = Field(
        None, ge=0, description="Length of the target of atoms; null = as it is; another number is refused."
    )
    additional_output_features: int | None = Field(
        None, ge=0, description="Length of the further targets of structures together; null = as they are."
    )
    extra_features: int | None = Field(
        None, ge=0, description="Number of data.features; null = as many as there are; another number is refused."
    )
    compat: Literal["none", "alignn"] = Field(
        "none",
        description="none: every message ends smoothly at the cutoff; alignn: the published sums, which jump there.",
    )

    @model_validator(mode="before")
    @classmethod
    def _foreign(cls, given: Any) -> Any:
        return refuse_foreign(given)

    @model_validator(mode="after")
    def _fits(self) -> AlignnSettings:
        if self.angle_cutoff > self.cutoff:
            raise ValueError("three_body_cutoff must not be larger than cutoff")
        if self.use_cutoff_function and self.envelope_cutoff > self.cutoff:
            raise ValueError("inner_cutoff must not be larger than cutoff: neighbours would enter with a jump")
        given = self.model_fields_set
        if not self.use_cutoff_function and "multiply_cutoff" in given and not self.multiply_cutoff:
            raise ValueError("multiply_cutoff has an effect only with use_cutoff_function")
        if self.cutoff_extra and (self.use_cutoff_function or self.neighbor_strategy == "k-nearest"):
            raise ValueError("cutoff_extra: has an effect only without use_cutoff_function, and not with k-nearest")
        for key, wanted in (("max_neighbors", 12), ("use_canonize", True)):
            if self.neighbor_strategy != "k-nearest" and getattr(self, key) != wanted:
                raise ValueError(f"{key} has an effect only with neighbor_strategy: k-nearest")
        if not self.alignn_layers and (self.three_body_cutoff or self.lighten_edges or not self.backtracking):
            raise ValueError("three_body_cutoff, lighten_edges, backtracking have an effect only with alignn_layers")
        return self

    @property
    def smooth(self) -> bool:
        """Whether energies and forces have no jumps."""
        return self.smooth_weights and self.neighbor_strategy != "k-nearest"

    @property
    def smooth_weights(self) -> bool:
        """Whether messages fade out towards cutoffs."""
        return self.compat == "none" and self.use_cutoff_function

    @property
    def ends_at_cutoff(self) -> bool:
        """Whether all neighbours are closer than the cutoff."""
        return self.neighbor_strategy != "k-nearest" and not self.cutoff_extra

    @property
    def envelope_cutoff(self) -> float:
        """Where the cutoff function ends, Å."""
        return self.cutoff if self.inner_cutoff is None else self.inner_cutoff

    @property
    def angle_cutoff(self) -> float:
        """Edges of angles are shorter than this, Å."""
        return self.cutoff if self.three_body_cutoff is None else self.three_body_cutoff

    @property
    def needs(self) -> Needs:
        """The graph that a model of these settings is fed."""
        nearest = self.max_neighbors if self.neighbor_strategy == "k-nearest" else 0
        once = "own_images" if self.compat == "alignn" else "none"
        longest = self.angle_cutoff
        if self.three_body_cutoff is None and not self.ends_at_cutoff:
            longest = math.inf
        return Needs(
            cutoff=self.cutoff,
            nearest=nearest,
            duplicates="none" if not nearest else once if self.use_canonize else "mutual",
            extra_cutoff=self.cutoff_extra,
            own_images=self.neighbor_strategy != "radius_graph_jarvis",
            triplets=longest if self.alignn_layers else 0.0,
            backtracking=self.backtracking,
            opposite=self.envelope_cutoff if self.lighten_edges else math.inf,
            smooth=self.smooth,
        )
