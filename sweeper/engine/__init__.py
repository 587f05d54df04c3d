"""Runs a sweep: prepares the study, opens it, and loops until its budget is used up."""
