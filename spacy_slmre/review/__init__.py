"""Review of predicted relations by a person, least certain first."""
