"""Networks of an outside package; each is told what is asked of it and reads padded sequences."""
