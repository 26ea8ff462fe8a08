"""Tests of what people read: the documentation's blocks, its pages, and the examples."""
