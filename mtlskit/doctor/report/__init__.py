"""What becomes of findings: values for scripts, an outline for people, a page, and what has changed."""
