"""What people look at: the page, the terminal, the pictures. It reads traces and knows nothing of runs."""
