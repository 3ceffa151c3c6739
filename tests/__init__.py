"""Graft's tests. They mirror the folders of what they test."""
