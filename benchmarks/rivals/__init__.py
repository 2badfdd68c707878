"""Other systems, measured beside ours. They enter benchmarks only, never the product."""
