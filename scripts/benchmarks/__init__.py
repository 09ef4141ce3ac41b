"""The benchmarks behind ``scripts/benchmark.py``; each yields rows of its table."""
