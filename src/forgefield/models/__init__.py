"""Graph -> outputs: architectures, physics terms and the potential that sums them."""
