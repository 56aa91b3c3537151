"""Small language models that label relation instances."""
