"""Forces of architectures that write the energy only: plain tensor operations by tracing."""
