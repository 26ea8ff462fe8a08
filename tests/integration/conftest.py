"""The object stores that tests here use."""

from support.store_fixtures import azurite, few_retries, moto, place, s3, seaweedfs, server

__all__ = ["azurite", "few_retries", "moto", "place", "s3", "seaweedfs", "server"]
