"""The HTTP service with its page, and the rules of all local pages."""
