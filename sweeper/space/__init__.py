"""The search-space language: YAML in, recipes out."""
