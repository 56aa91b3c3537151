"""The HTTP service with its page, and the security rules of all pages."""
