"""From photographs and videos to joints in their pixels, on disk or in Python."""
