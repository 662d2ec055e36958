"""Problems of benchmarks: where they come from, which of them, and what their columns mean."""
