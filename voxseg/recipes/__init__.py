"""One experiment a TOML file."""
