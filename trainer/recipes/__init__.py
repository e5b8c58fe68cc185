"""Training recipes: one YAML file each; its first line says what it trains."""
