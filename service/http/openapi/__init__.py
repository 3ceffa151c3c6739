"""The HTTP interface described: OpenAPI 3.1 for programs, and the same as a page for people."""
