"""Files, run folders, errors and system information; nothing in here knows about relations."""
