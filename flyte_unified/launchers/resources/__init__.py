"""Attempts as operators' custom resources."""
