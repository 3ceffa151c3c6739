"""Server reflection as v1 and v1alpha, so that grpcurl and its like need no .proto files.

grpcio-reflection answers v1alpha only. v1 is the same messages under another package name, so one servicer answers
both; tools ask for v1 first and not all of them fall back.
"""

from collections.abc import Sequence
from typing import Final

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from service.grpc.observed import Methods

SERVICE_NAME: Final = "grpc.reflection.v1.ServerReflection"


def add_reflection(service_names: Sequence[str], methods: Methods) -> None:
    """Makes a server describe its services, reflection itself among them."""
    _describe_v1()
    servicer = ReflectionServicer([*service_names, SERVICE_NAME, reflection.SERVICE_NAME])
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, methods)  # type: ignore[no-untyped-call]  # generated
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    methods.add_registered_method_handlers(SERVICE_NAME, {"ServerReflectionInfo": method})


def _describe_v1() -> None:
    """Adds v1's description, which is v1alpha's under its own name, to the descriptors that reflection looks in."""
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    old, new = file.package, SERVICE_NAME.rpartition(".")[0]
    file.name, file.package = file.name.replace("v1alpha", "v1"), new
    for message in file.message_type:
        for field in message.field:
            if field.type_name:  # of messages; setting it to nothing would make a number a message
                field.type_name = field.type_name.replace(f".{old}.", f".{new}.")
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(f".{old}.", f".{new}.")
        method.output_type = method.output_type.replace(f".{old}.", f".{new}.")
    descriptor_pool.Default().Add(file)
