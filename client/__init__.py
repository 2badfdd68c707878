"""One hospital: its data, its privacy budget, its half of the protocol."""
