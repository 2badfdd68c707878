"""Hospitals train one recurrent model together; patient data stays in the building."""
