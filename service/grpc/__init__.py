"""The gRPC front: grpc.aio. Translates; the classifier does the work."""
