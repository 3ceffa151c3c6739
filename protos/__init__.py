"""The wire contract: .proto files and the code generated from them. Imports nothing of ours."""
