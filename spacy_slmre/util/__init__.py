"""Files, run folders, errors and system information: nothing about relations."""
