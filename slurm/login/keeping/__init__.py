"""What `collect` keeps of a run: a folder of files that come whole, with tables, pictures and digests."""
