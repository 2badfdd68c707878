"""What the vector of each round holds; both sides derive it from the study.

A study enters; sizes, bounds and layouts come out.
"""
