"""The light client: image files in, labels out, over HTTP or gRPC. Needs neither TensorFlow nor numpy.

    python -m service.client photo.jpg --url http://localhost:8501
    python -m service.client --recursive photos --out results.csv

From Python, from any number of threads:

    with HttpClient("http://localhost:8501") as client:  # or GrpcClient("localhost:8500")
        (prediction,) = client.classify([("photo.jpg", data)])
"""

from service.client.base import ActivationMap, Ask, Client, ClientError, Prediction, Refused, Retry, Unanswered
from service.client.grpc import GrpcClient
from service.client.http import HttpClient

__all__ = [
    "ActivationMap",
    "Ask",
    "Client",
    "ClientError",
    "GrpcClient",
    "HttpClient",
    "Prediction",
    "Refused",
    "Retry",
    "Unanswered",
]
