"""What a user can check on their own machine: files, exact resume, speed."""
