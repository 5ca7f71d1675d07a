"""All compiled loops. Nothing here needs to be read to read the rest."""
