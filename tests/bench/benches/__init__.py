"""The benchmarks, one a module: each is a dataclass of sizes that can be run."""
