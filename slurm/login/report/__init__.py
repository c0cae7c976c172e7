"""The pages that `collect` leaves: self-contained, complete without script, with no request to anywhere."""
