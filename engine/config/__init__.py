"""Configuration: from YAML files and key=value words to checked, typed values."""
