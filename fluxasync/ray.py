"""Runs on a Ray cluster: `Ray` names the cluster of a run, `images` is for users of ray.data. Needs
the extra `ray`."""

from .cluster.cluster_batch import Ray as Ray
from .cluster.datasets import images as images
