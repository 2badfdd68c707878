"""Other systems, measured beside ours and never part of the product."""
