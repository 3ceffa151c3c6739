"""The service: loads version directories and answers classifications over HTTP and gRPC."""
