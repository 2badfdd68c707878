"""The coordinator: orchestrates rounds and learns sums, never one site's update."""
