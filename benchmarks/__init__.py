"""Side-by-side measurements; ``python -m benchmarks`` lists, runs and reports them."""
