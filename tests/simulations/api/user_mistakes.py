"""Mistakes that a type checker must find: each line that ends in a comment has that error."""

import consilium

study = consilium.load_study("study.toml")
result = consilium.simulate(study)
result.epsilon = 1.0  # misc
misspelt = result.test.auroc.vaule  # attr-defined
misspelt = result.test.aurocc  # attr-defined
result.test.auroc.value = 1.0  # misc
consilium.simulate("study.toml")  # arg-type
consilium.compare(study, modes=["none"])  # list-item
consilium.simulat(study)  # attr-defined
