"""XPaiNN beside a slow one of its own that follows the formulas atom by atom, with e3nn's harmonics."""

import math

import numpy as np
import pytest
import torch
from e3nn import o3

from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.kernels.choice import kernels
from forgefield.models.architectures.xpainn.gather import Layout
from forgefield.models.architectures.xpainn.settings import XpainnSettings
from forgefield.models.potential import build_potential

ELEMENTS = [1, 6, 8, 14]
ENERGIES = {"default": dict.fromkeys(ELEMENTS, -3.0)}
SMALL = {"node_dim": 8, "node_irreps": "6x0e + 5x1o + 3x2e", "num_basis": 6, "cutoff": 3.5, "hidden_dim": 7}
CASES = {
    "published": {"cutoff_fn": "cosine", "rbf_kernel": "bessel", "softness": 1e-6},
    "high degrees": {"node_irreps": "4x1o + 3x3o + 2x4e", "rbf_kernel": "gaussian", "action_blocks": 2},
    "electrons": {"charge_embed": True, "spin_embed": True, "rbf_kernel": "expnorm", "activation": "softplus"},
    "bare": {"layer_norm": False, "embed_basis": "one-hot", "rbf_kernel": "expbern", "cutoff_fn": "exponential"},
    "one block": {"action_blocks": 1, "embed_basis": "gfn1-xtb", "aux_basis": "aux28"},
}


def make(settings, dtype=torch.float64, aims=None, seed=5, **more):
    made = XpainnSettings.model_validate(SMALL | settings | more)
    basics = {"elements": ELEMENTS, "reference_energies": ENERGIES, "avg_num_neighbors": 5.0}
    return build_potential("xpainn", made, aims=aims, dtype=dtype, seed=seed, **basics)


def even(n=9, seed=0, charge=0, multiplicity=1):
    """Only carbon, oxygen and silicon: any number of them has an even number of electrons."""
    rng = np.random.default_rng(seed)
    grid = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(3)])[:n] * 1.3
    numbers = rng.choice([6, 8, 14], n)
    return Structure(numbers, grid + rng.normal(0, 0.2, (n, 3)), charge=charge, multiplicity=multiplicity)


# -- the slow one ----------------------------------------------------------------------------------------------


class Slow:
    """The formulas of docs/xpainn.md, one atom and one edge at a time; parameters by name from the fast one."""

    def __init__(self, architecture):
        self.p = {name: value.detach() for name, value in architecture.named_parameters()}
        self.settings, self.table = architecture.settings, getattr(architecture.embedding, "overlaps", None)
        self.degrees, self.channels = self.settings.irreps

    def act(self, x):
        return x / (1 + torch.exp(-x)) if self.settings.activation == "silu" else torch.log(1 + torch.exp(x))

    def dense(self, x, name):
        y = torch.stack([sum(x[i] * row[i] for i in range(len(x))) for row in self.p[f"{name}.weight"].T])
        return y + self.p[f"{name}.bias"] if f"{name}.bias" in self.p else y

    def network(self, x, name):
        return self.dense(self.act(self.dense(x, f"{name}.layers.0")), f"{name}.layers.1")

    def layer_norm(self, x, name):
        if not self.settings.layer_norm:
            return x
        centred = x - x.mean()
        scale = torch.sqrt((centred**2).mean() + 1e-5)
        return centred / scale * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    def equivariant_norm(self, v, name):
        """v: by degree, (C, 2l+1)."""
        if not self.settings.layer_norm:
            return v
        v = [x - x.mean(0) if l == 0 else x for l, x in zip(self.degrees, v, strict=True)]
        mean = sum(float((row**2).sum()) for x in v for row in x) / sum(self.channels)
        scaled, start = [], 0
        for l, x in zip(self.degrees, v, strict=True):
            y = x / math.sqrt(mean + self.settings.softness**2)
            y = y * self.p[f"{name}.weight"][start : start + len(x), None]
            scaled.append(y + self.p[f"{name}.bias"][:, None] if l == 0 else y)
            start += len(x)
        return scaled

    def radial(self, r):
        s, k = self.settings, torch.arange(1, self.settings.num_basis + 1, dtype=torch.float64)
        if s.rbf_kernel == "bessel":
            return math.sqrt(2 / s.cutoff) * torch.sin(self.p["basis.functions.frequencies"] * r) / (r + 1e-5)
        if s.rbf_kernel == "gaussian":
            mean, width = self.p["basis.functions.centres"], self.p["basis.functions.widths"]
            return torch.exp(-0.5 * ((r - mean) / width) ** 2) / (width.abs() * math.sqrt(2 * math.pi))
        if s.rbf_kernel == "expnorm":
            rate, mean = self.p["basis.functions.rates"], self.p["basis.functions.centres"]
            return torch.exp(-rate * (math.exp(-r) - mean) ** 2)
        x = math.exp(-r * math.log(1 + math.exp(float(self.p["basis.functions.slope"][0]))))
        n = s.num_basis - 1
        return k.new_tensor([math.comb(n, j) * x ** (n - j) * (1 - x) ** j for j in range(n + 1)])

    def cutoff(self, r):
        x = r / self.settings.cutoff
        if x >= 1:
            return 0.0
        kinds = {
            "cosine": 0.5 * (math.cos(math.pi * x) + 1),
            "polynomial": 1 - 10 * x**3 + 15 * x**4 - 6 * x**5,
            "exponential": math.exp(-(x**2) / ((1 - x) * (1 + x))),
        }
        return kinds[self.settings.cutoff_fn]

    def harmonics(self, d):
        """By degree, (2l+1,)."""
        return [o3.spherical_harmonics(l, d, normalize=True, normalization="component") for l in self.degrees]

    def embed(self, structure):
        kinds = [ELEMENTS.index(z) for z in structure.numbers]
        if self.table is None:
            s = [self.p["embedding.kinds"][k] for k in kinds]
        else:
            s = [self.dense(self.table[k], "embedding.map") for k in kinds]
        names = ["charge"] * self.settings.charge_embed + ["spin"] * self.settings.spin_embed
        for k, kind in enumerate(names):
            s = self.electrons(s, f"embedding.electrons.{k}", kind, structure)
        return s

    def electrons(self, s, name, kind, structure):
        q, unpaired = structure.charge, structure.multiplicity - 1
        stated = torch.tensor([max(q, 0), max(-q, 0)] if kind == "charge" else [unpaired], dtype=torch.float64)
        key = (stated / stated.clamp(min=1)) @ self.p[f"{name}.key"]
        value = stated @ self.p[f"{name}.value"]
        dots = [float(self.dense(x, f"{name}.query") @ key) / math.sqrt(len(key)) for x in s]
        weights = [math.log(1 + math.exp(d)) for d in dots]
        found = []
        zero = self.act(torch.zeros(len(key), dtype=torch.float64))
        for x, weight in zip(s, weights, strict=True):
            share = value * weight / sum(weights)
            y = share
            for k in range(2):
                y = self.dense(self.act(y) - zero, f"{name}.residual.{k}")
            found.append(x + share + y)
        return found

    def message(self, s, v, edges, name, first):
        layout = Layout(self.settings.node_dim, self.degrees, self.channels, not first)
        sent = [self.network(self.layer_norm(x, f"{name}.norm"), f"{name}.sender") for x in s]
        if not first:
            v_in = [self.equivariant_norm(x, f"{name}.equivariant_norm") for x in v]
        new_s, new_v = [x.clone() for x in s], [[x.clone() for x in row] for row in v]
        for i, j, d in edges:
            r = float(d.norm())
            filters = self.dense(self.radial(r), f"{name}.radial") * self.cutoff(r)
            cuts = [layout.width, *self.channels, *(self.channels if layout.state else ())]
            parts = (sent[j] * filters).split(cuts)
            new_s[i] += parts[0]
            for k, y in enumerate(self.harmonics(d)):
                new_v[i][k] += parts[1 + k][:, None] * y
                if layout.state:
                    new_v[i][k] += parts[1 + len(self.degrees) + k][:, None] * v_in[j][k]
        return new_s, new_v

    def update(self, s, v, name, moves):
        width, n = self.settings.node_dim, sum(self.channels)
        new_s, new_v = [], []
        for x, row in zip(s, v, strict=True):
            normed, parts = self.layer_norm(x, f"{name}.norm"), self.equivariant_norm(row, f"{name}.equivariant_norm")
            us, vs = [], []
            for k, (l, part) in enumerate(zip(self.degrees, parts, strict=True)):
                both = torch.einsum("ci,cd->di", part, self.p[f"{name}.mix.weights.{k}"])
                if l == 0:
                    both = both + self.p[f"{name}.mix.bias"][:, None]
                us.append(both[: len(part)])
                vs.append(both[len(part) :])
            e = self.settings.softness
            lengths = [math.sqrt(float(row @ row) + e * e) - e for y in vs for row in y]
            of_dot, alone, *gates = self.network(
                torch.cat([normed, normed.new_tensor(lengths)]), f"{name}.network"
            ).split([width, width, n] if moves else [width, width])
            dots = torch.cat([(a * b).sum(1) for a, b in zip(us, vs, strict=True)])
            new_s.append(x + of_dot * self.dense(dots, f"{name}.dot") + alone)
            if moves:
                gate = gates[0].split(list(self.channels))
                row = [y + a * g[:, None] for y, a, g in zip(row, us, gate, strict=True)]
            new_v.append(row)
        return new_s, new_v

    def energies(self, structure):
        s = self.embed(structure)
        v = [[torch.zeros(c, 2 * l + 1, dtype=torch.float64) for l, c in zip(self.degrees, self.channels, strict=True)]]
        v, n = v * len(s), self.settings.action_blocks
        x = torch.as_tensor(structure.positions)
        pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if i != j]
        edges = [(i, j, x[i] - x[j]) for i, j in pairs if float((x[i] - x[j]).norm()) < self.settings.cutoff]
        for k in range(n):
            s, v = self.message(s, v, edges, f"messages.{k}", k == 0)
            s, v = self.update(s, v, f"updates.{k}", k < n - 1)
        found = []
        for y in s:
            hidden = self.act(y @ self.p["energy.first"][0] + self.p["energy.bias"][0])
            found.append(hidden @ self.p["energy.second"][0][:, 0] + self.p["energy.shift"][0, 0])
        return torch.stack(found)


@pytest.mark.parametrize(("name", "choice"), [*((name, "auto") for name in CASES), ("high degrees", "plain")])
def test_equals_the_formulas(name, choice):
    potential, structure = make(CASES[name]), even(7, charge=-2, multiplicity=3)
    with torch.no_grad():
        for parameter in potential.parameters():  # what begins at 0 or 1 must not stay there
            parameter += 0.05 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
            )
        with kernels(choice):
            found = potential(build_graph([structure], potential.needs, dtype=torch.float64)).atom_energies + 3.0
    wanted = Slow(potential.architecture).energies(structure)
    assert float(wanted.std()) > 1e-3
    assert float((found - wanted).abs().max()) < 1e-10 * float(wanted.abs().max())
