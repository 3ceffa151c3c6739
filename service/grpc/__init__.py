"""The gRPC front. Translates; the classifier does the work."""
