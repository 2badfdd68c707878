"""One HTML file that says how good a run's model is, for whom it fails, and what is protected."""
