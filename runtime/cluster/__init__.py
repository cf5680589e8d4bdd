"""Large collections of videos: lists and tables of them, on one machine or over a cluster, and their results."""
