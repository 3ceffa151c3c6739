"""The engine process: one loaded version on one device. Queue, decode, batch, runtime."""
