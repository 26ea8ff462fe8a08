"""Pages of figures: charts, tables and thumbnails in one file; the page of a run."""
