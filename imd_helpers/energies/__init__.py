"""Energies by universal potentials: relaxation, hulls, phonons."""
